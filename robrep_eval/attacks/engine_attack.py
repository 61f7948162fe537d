"""What the attacks on robrep's engine have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.noise import Randomness
from robrep_eval.attacks.pool import Program
from robrep_eval.attacks.runs import Runs
from robrep_eval.attacks.targets import UNTARGETED, Targets
from robrep_eval.attacks.turn import Turn
from zoo._version import __version__
from zoo.classifier import Classifier
from zoo.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class EngineAttack(ABC):
    """One attack; see `robrep_eval.attacks.base.Attack`. A subclass adds its settings
    and its program."""

    name: str
    steps: int = 100
    """Iterations or queries of each run."""
    restarts: int = 1
    randomness: Randomness = "per-example"
    sequence: bool = True
    engine: str = field(default=f"robrep {__version__}", init=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """What is in force, JSON-ready; a subclass adds its own settings."""
        return {
            "steps": self.steps,
            "restarts": self.restarts,
            "randomness": self.randomness,
            **self.targets.parameters,
        }

    @property
    def targets(self) -> Targets:
        """The classes that the runs aim at."""
        return UNTARGETED

    @property
    def alike(self) -> bool:
        """Whether one program serves several runs: targets, and for some restarts."""
        return self.restarts == 1

    @abstractmethod
    def program(self, turn: Turn) -> Program:
        """See `robrep_eval.attacks.turn.Programmed`."""

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
