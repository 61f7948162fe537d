"""In which order a targeted attack takes the wrong classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robrep_eval.attacks.hyperplane import dual_lengths
from robrep_eval.attacks.problem import Model
from zoo.threat import ThreatModel

CANDIDATES = 20
"""Classes of the highest logits that are ranked by their linearised distance."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Which wrong classes an attack aims at, and for which examples."""

    count: int
    """0: untargeted."""
    ranking: Literal["logit", "malt", "met"] = "logit"
    """Their order: by clean logit, by linearised distance to the boundary (Melamed et
    al. 2024, arXiv 2407.02240), or by how near their logit came to the label's in the
    rounds before (`robrep_eval.attacks.rounds`)."""
    near: float = 1.0
    """Below 1: targets after the first are only for examples near the boundary, whose
    margin the first brought below this share of the clean one. The others count as
    held."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What is in force, JSON-ready."""
        if not self.count:
            return {}
        shown: dict[str, Any] = {"targets": self.count, "ranking": self.ranking}
        return shown | ({"near": self.near} if self.near < 1 else {})


UNTARGETED = Targets(count=0)


def by_logit(logits: Tensor, y: Tensor) -> Tensor:
    """Wrong classes (n, K - 1) by their clean logit, highest first."""
    wrong = logits.scatter(1, y.unsqueeze(1), -float("inf"))
    return wrong.argsort(dim=1, descending=True, stable=True)[:, :-1]


def by_distance(
    model: Model,
    x: Tensor,
    y: Tensor,
    logits: Tensor,
    threat: ThreatModel,
    batch_size: int,
) -> Tensor:
    """Likely wrong classes (n, at most `CANDIDATES`), the nearest boundary first.

    Distances are those to the boundaries of the classifier linearised at the image.

    Source: Melamed et al. 2024, arXiv 2407.02240.
    """
    classes = by_logit(logits, y)[:, :CANDIDATES]
    parts = zip(
        x.split(batch_size),
        y.split(batch_size),
        classes.split(batch_size),
        strict=True,
    )
    return torch.cat([_nearest_first(model, *part, threat) for part in parts])


def _nearest_first(
    model: Model, x: Tensor, y: Tensor, classes: Tensor, threat: ThreatModel
) -> Tensor:
    both = torch.cat([y.unsqueeze(1), classes], dim=1)
    logits, rows = model.jacobian(x, both)
    picked = logits.gather(1, both)
    gap = picked[:, :1] - picked[:, 1:]
    slope = (rows[:, :1] - rows[:, 1:]).flatten(2)
    order = (gap / (dual_lengths(slope, threat.norm) + 1e-12)).argsort(
        dim=1, stable=True
    )
    return classes.gather(1, order)
