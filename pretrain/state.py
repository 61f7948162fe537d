"""Where a run stands, as its checkpoint keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pretrain.build import Workload


@dataclass
class State:
    """Where a run stands."""

    epoch: int = 0
    """Epochs that lie behind."""
    seconds: float = 0.0
    best: float = -math.inf
    """Score of the best look so far."""
    step: int = 0
    """Steps of the epoch under way that lie behind, ..."""
    sums: dict[str, float] = field(default_factory=dict)
    """... the sum of each loss part over them, ..."""
    spent: float = 0.0
    """... and their seconds."""

    @classmethod
    def read(cls, saved: Mapping[str, Any], plan: Workload) -> Self:
        """From a checkpoint.

        Raises:
            KeyError: something is not in it.
            ValueError: its epoch or step is none of this run's.
        """
        epoch, step = saved["epoch"], saved["step"]
        if not 0 <= epoch <= plan.epochs:
            raise ValueError(f"epoch {epoch} of {plan.epochs}")
        if not 0 <= step < max(1, plan.steps_per_epoch):
            raise ValueError(f"step {step} of {plan.steps_per_epoch}")
        return cls(
            epoch=int(epoch),
            seconds=float(saved["seconds"]),
            best=float(saved["best"]),
            step=int(step),
            sums=dict(saved["sums"]),
            spent=float(saved["spent"]),
        )
