"""Attacks by the Adversarial Robustness Toolbox (ART), through its own wrapper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robrep_eval.adapters import to_art
from robrep_eval.attacks.base import Context
from robrep_eval.randomness import seeded
from zoo.classifier import Classifier
from zoo.threat import ThreatModel


@cache
def engine_name() -> str:
    """Package and version, for the record."""
    return f"art {version('adversarial-robustness-toolbox')}"


def art_norm(threat: ThreatModel) -> float | int:
    """ART's name of the norm."""
    return {"Linf": np.inf, "L2": 2, "L1": 1}[threat.norm]


@dataclass(frozen=True, kw_only=True)
class ArtPgd:
    """PGD on the cross-entropy (Madry et al. 2018, arXiv 1706.06083) by ART."""

    steps: int = 40
    restarts: int = 5
    relative_step: float = 0.1
    """Length of a step as a share of eps."""
    name: str = "pgd"
    sequence: bool = False

    @property
    def engine(self) -> str:
        return engine_name()

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "restarts": self.restarts,
            "relative_step": self.relative_step,
            "loss": "cross-entropy",
            "start": "uniform in the ball",
        }

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """The best of the restarts for each image."""
        from art.attacks.evasion import ProjectedGradientDescent

        attack = ProjectedGradientDescent(
            to_art(classifier),
            norm=art_norm(threat),
            eps=threat.eps,
            eps_step=self.relative_step * threat.eps,
            max_iter=self.steps,
            num_random_init=self.restarts,
            batch_size=context.batch_size,
            verbose=False,
        )
        return generate(attack, x, y, context)


@dataclass(frozen=True, kw_only=True)
class ArtFgsm:
    """One step of size eps along the gradient (arXiv 1412.6572) by ART."""

    name: str = "fgsm"
    sequence: bool = False

    @property
    def engine(self) -> str:
        return engine_name()

    @property
    def parameters(self) -> dict[str, Any]:
        return {"loss": "cross-entropy", "start": "the clean image"}

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """One gradient per image."""
        from art.attacks.evasion import FastGradientMethod

        attack = FastGradientMethod(
            to_art(classifier),
            norm=art_norm(threat),
            eps=threat.eps,
            batch_size=context.batch_size,
        )
        return generate(attack, x, y, context)


def generate(attack: Any, x: Tensor, y: Tensor, context: Context) -> Tensor:
    """Runs an ART attack on the true labels, seeded; back to a float32 tensor."""
    with seeded(context.seed, context.device):
        found = attack.generate(x=x.numpy(), y=y.numpy())
    context.progress(1.0)
    return torch.from_numpy(np.asarray(found, dtype=np.float32))
