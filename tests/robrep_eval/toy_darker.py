"""A toy attack of another package: one file, with its row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.registry import AttackInfo
from zoo.classifier import Classifier
from zoo.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Darker:
    """Takes eps from every pixel."""

    name: str = "toy-darker"
    engine: str = "toys 1.0"
    sequence: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        return {"direction": "down"}

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        return (x - threat.eps).clamp(min=0)


DARKER = Darker()
ROW = AttackInfo(
    name="toy-darker", build="toy_darker:DARKER", summary="every pixel less by eps"
)
