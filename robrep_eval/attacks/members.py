"""The members of the batteries: AutoAttack's four and its kin, on the fast engine.

Here stand their settings; `robrep_eval.attacks.runs` runs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.noise import Randomness
from robrep_eval.attacks.runs import Runs
from zoo._version import __version__
from zoo.classifier import Classifier
from zoo.threat import ThreatModel

Family = Literal["apgd", "fab", "square"]


@dataclass(frozen=True, kw_only=True)
class EngineAttack:
    """One attack; see `robrep_eval.attacks.base.Attack`."""

    name: str
    family: Family
    loss: str = ""
    """Of APGD: a name in `robrep_eval.attacks.runs.LOSSES`."""
    steps: int = 100
    """Iterations, or queries of Square."""
    targets: int = 0
    """Target classes, in order of their rank; 0: untargeted."""
    ranking: Literal["logit", "malt"] = "logit"
    """Order of targets: by clean logit, or by linearised distance to the boundary
    (Melamed et al. 2024, arXiv 2407.02240)."""
    near: float = 1.0
    """With fewer than all: targets after the first are for examples whose margin it
    brought below this share of the clean one. The others count as held."""
    restarts: int = 1
    start: Literal["random", "stripes"] = "random"
    """Of APGD: anywhere in the ball, or at its edge in stripes of either sign for each
    channel, as Square starts (arXiv 1912.00049): horizontal ones in even runs, vertical
    ones in odd. Not in L1, where a start is sparse."""
    larger_radii: bool = False
    """L1 only: begin at 3 eps and 2 eps."""
    averaged: int = 1
    """Passes per gradient, for stochastic classifiers."""
    randomness: Randomness = "per-example"
    sequence: bool = True
    engine: str = field(default=f"robrep {__version__}", init=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """What is in force, JSON-ready."""
        shown: dict[str, Any] = {
            "steps": self.steps,
            "restarts": self.restarts,
            "randomness": self.randomness,
        }
        if self.family == "apgd":
            shown |= {"loss": self.loss, "averaged": self.averaged}
            shown |= {"larger_radii": self.larger_radii}
        if self.start != "random":
            shown["start"] = self.start
        if self.targets:
            shown |= {"targets": self.targets, "ranking": self.ranking}
        if self.near < 1:
            shown["near"] = self.near
        return shown

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """See `Attack.propose`; rows that held are the clean images."""
        return Runs(self, classifier, x, y, threat, context).all()
