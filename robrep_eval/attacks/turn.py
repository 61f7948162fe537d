"""What an attack of the engine has to be: it makes programs for turns.

A run is one restart or one target class. A turn is one run, or several side by side,
over the examples that are still standing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robrep_eval.attacks.noise import Kind, Noise, Randomness, Rows
from robrep_eval.attacks.pool import Program
from robrep_eval.attacks.problem import Problem
from robrep_eval.attacks.targets import Targets


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a program is made of.

    Its tasks are numbered: k * n + i is example i under the k-th of `runs`, n being
    the number of examples.
    """

    problem: Problem
    """A row for each task."""
    noise: Noise
    runs: Sequence[int]
    guard: float
    """Margin beyond which a fooled row retires; infinity: never."""
    batch_size: int
    """Rows per pass."""
    classes: int

    @property
    def ids(self) -> Tensor:
        """Positions of the examples in the published split, (n,)."""
        return self.problem.ids[: len(self.problem.x) // len(self.runs)]

    @property
    def start_kind(self) -> Kind:
        """Uniform for Linf, where a random start is spread over the ball."""
        return "uniform" if self.problem.threat.norm == "Linf" else "normal"

    def start_noise(self) -> Rows:
        """Noise for random starts, of the shape of an image."""
        shape = tuple(self.problem.x.shape[1:])
        return self.each_run(
            lambda run: self.noise.images(self.start_kind, run, self.ids, shape)
        )

    def each_run(
        self, draw: Callable[[int], Rows], shape: tuple[int, ...] | None = None
    ) -> Rows:
        """Draws for all tasks, from a function that gives them for one run.

        Args:
            draw: Maps the number of a run to a function of example numbers.
            shape: Of one draw; that of an image by default.
        """
        n = len(self.ids)
        shape = tuple(self.problem.x.shape[1:]) if shape is None else shape
        each = [draw(run) for run in self.runs]

        def rows(tasks: Tensor) -> Tensor:
            drawn = torch.empty((len(tasks), *shape))
            for k, of_run in enumerate(each):
                mine = tasks // n == k
                drawn[mine] = of_run(tasks[mine] % n)
            return drawn

        return each[0] if len(each) == 1 else rows


class Programmed(Protocol):
    """An attack whose runs are programs; all that `robrep_eval.attacks.runs` asks."""

    @property
    def name(self) -> str:
        """Unique within a battery."""

    @property
    def restarts(self) -> int:
        """Runs for each target, or in all."""

    @property
    def randomness(self) -> Randomness:
        """Where its draws come from."""

    @property
    def targets(self) -> Targets:
        """The classes that its runs aim at."""

    @property
    def alike(self) -> bool:
        """Whether one program serves several runs, side by side."""

    def program(self, turn: Turn) -> Program:
        """What each task of the turn does. Several targets may run side by side."""
