"""The adversarials of a run, seen once more by its classifier: forward passes only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robrep_eval.report.material import Material
from zoo.ball import lengths
from zoo.classifier import Classifier, predict
from zoo.evidence import check_adversarials
from zoo.layout import Layout
from zoo.threat import ThreatModel

BISECTIONS = 7
"""Each adversarial is shrunk to within 1/128 of its own length."""
SHRINK_LIMIT = 2000
"""Adversarials to shrink; each costs `BISECTIONS` + 2 forward passes."""
BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One entry for each adversarial of the run."""

    row: list[int]
    """Its example, as a row of the record."""
    attack: list[str]
    said: list[int] | None
    """The class that the classifier sees; None without the classifier."""
    distance: list[float]
    """Norm of the perturbation, float64."""
    shrunk: list[float]
    """Smallest distance at which the shrunk perturbation is known to fool."""
    shrunk_count: int
    """How many were shrunk: the first ones, 0 without the classifier."""

    def fooled_at(self) -> dict[int, float]:
        """For each fooled example the smallest known distance that fools it."""
        found: dict[int, float] = {}
        for row, distance in zip(self.row, self.shrunk, strict=True):
            found[row] = min(distance, found.get(row, distance))
        return found

    def first(self) -> dict[int, int]:
        """For each fooled example the position of its first adversarial."""
        found: dict[int, int] = {}
        for at, row in enumerate(self.row):
            found.setdefault(row, at)
        return found


def see(material: Material, *, device: str = "cpu") -> Seen | None:
    """Looks at every adversarial again; None without images or adversarials."""
    data, claims = material.data, material.claims
    if data is None or claims is None:
        return None
    result, classifier = material.result, material.classifier
    distance: list[float] = []
    shrunk: list[float] = []
    said: list[int] = []
    for start in range(0, len(claims.positions), BLOCK):
        rows = claims.positions[start : start + BLOCK]
        x, x_adv = data.images(rows), claims.images[start : start + BLOCK]
        own = lengths(x_adv.double() - x.double(), result.threat.norm)
        distance += own.tolist()
        if classifier is not None:
            said += (
                predict(classifier, x_adv, Layout(device=device)).argmax(dim=1).tolist()
            )
        if classifier is not None and start < SHRINK_LIMIT:
            y = data.labels[rows]
            own = shrink(classifier, x, x_adv, y, result.threat, own, device=device)
        shrunk += own.tolist()
    return Seen(
        row=claims.positions.tolist(),
        attack=[result.attacks[at].name for at in claims.attack_index.tolist()],
        said=said if classifier is not None else None,
        distance=distance,
        shrunk=shrunk,
        shrunk_count=_shrunk(len(shrunk)) if classifier is not None else 0,
    )


def _shrunk(count: int) -> int:
    """Whole blocks are shrunk, until the limit is passed."""
    return min(count, -(-SHRINK_LIMIT // BLOCK) * BLOCK)


def shrink(
    classifier: Classifier,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    threat: ThreatModel,
    distance: Tensor,
    *,
    device: str = "cpu",
) -> Tensor:
    """How short each perturbation can be made, keeping its direction; float64 (N,).

    Bisection between the clean image and the adversarial. What it ends with is an
    adversarial of its own and passes the same re-check as those of the run; where it
    does not, the given distance stands. Nothing says that it is the nearest one.

    Args:
        classifier: Images to logits.
        x: Clean images (N, C, H, W).
        x_adv: Counted adversarials of the same shape.
        y: Labels (N,).
        threat: Of the run.
        distance: Norms of the perturbations (N,).
        device: Where the classifier lives.
    """
    low, high = torch.zeros(len(x)), torch.ones(len(x))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        said = predict(classifier, _between(x, x_adv, middle), Layout(device=device))
        wrong = said.argmax(dim=1) != y
        high = torch.where(wrong, middle, high)
        low = torch.where(wrong, low, middle)
    found = check_adversarials(
        classifier, x, _between(x, x_adv, high), y, threat, device=device
    )
    return torch.where(found.fooled, found.distance.minimum(distance), distance)


def _between(x: Tensor, x_adv: Tensor, share: Tensor) -> Tensor:
    """From x (share 0) to x_adv (share 1), inside [0, 1] whatever the rounding."""
    return torch.lerp(x, x_adv, share.view(-1, 1, 1, 1)).clamp(0, 1)
