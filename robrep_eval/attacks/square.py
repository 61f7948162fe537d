"""Square attack: random squares, kept when they lower the margin.

Source: Andriushchenko et al. 2020, arXiv 1912.00049.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.pool import Program
from robrep_eval.attacks.square_linf import SquareLinf
from robrep_eval.attacks.square_windows import SquareWindows
from robrep_eval.attacks.turn import Turn


@dataclass(frozen=True, kw_only=True)
class SquareAttack(EngineAttack):
    """Square in any norm; see `robrep_eval.attacks.base.Attack`."""

    steps: int = 5000
    """Queries."""
    speculation: bool = True
    """Off: one square of each image in a pass. No part of the record."""
    gradients: ClassVar[bool] = False

    def program(self, turn: Turn) -> Program:
        problem, noise, run = turn.problem, turn.noise, turn.runs[0]
        if problem.threat.norm == "Linf":
            exact = self.randomness == "official-rng"
            return SquareLinf(
                problem,
                noise,
                run=run,
                queries=self.steps,
                guard=turn.guard,
                rows=0 if exact or not self.speculation else turn.batch_size,
            )
        return SquareWindows(
            problem,
            noise,
            run=run,
            queries=self.steps,
            guard=turn.guard,
            batch_size=turn.batch_size,
        )
