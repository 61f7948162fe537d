"""A physical batch that is kept full from a queue of waiting tasks.

A task is one example under one restart or target. Tasks leave as soon as they are
finished, and the freed rows are filled from the queue, so every pass runs at the full
batch size however early examples fall. All programs act per row: which rows share a
batch does not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

SAVES = 20
"""Times as long as the last save took, at least, until the next."""
State = dict[str, Tensor]
"""Columns of equal length, one row per task in the batch."""


class Program(Protocol):
    """An attack as a per-row machine.

    Every state holds "task" (its number), "found" (whether a misclassified point was
    met) and "image" (that point; the clean image before). It may hold "broken"
    (whether logits or gradients were not finite) and "gaps" (how near each class's
    logit came to the label's).
    A program may count in `flat` the starts where the gradient was exactly zero.
    """

    steps: int
    """How many a task takes at most."""
    clock: str
    """The column that counts them."""
    lockstep: bool
    """True: all tasks enter together and none is refilled."""

    def begin(self, tasks: Tensor) -> State:
        """Columns of fresh tasks."""

    def step(self, state: State) -> Tensor | None:
        """One step of every row, in place.

        Returns bool (n,), True where finished. None says that no row is, and spares a
        GPU that question.
        """


def told(*answers: Tensor) -> list[bool]:
    """What several bool scalars are: a GPU is waited for once."""
    found: list[bool] = torch.stack(answers).tolist()
    return found


@dataclass
class Journal:
    """Where unfinished work is kept, so that a killed run loses seconds.

    The default keeps nothing. `load` gives what `save` was last called with.
    """

    load: Callable[[], State] = dict
    save: Callable[[State], None] | None = None
    seconds: float = 5.0
    _last: float = field(default_factory=time.monotonic)
    _cost: float = 0.0

    def due(self) -> bool:
        """True once every `seconds`, or later where saving takes long."""
        if self.save is None:
            return False
        wait = max(self.seconds, SAVES * self._cost)
        return time.monotonic() - self._last >= wait

    def keep(self, state: State) -> None:
        """Saves, and notes how long that took."""
        if self.save is not None:
            began = time.monotonic()
            self.save(state)
            self._last = time.monotonic()
            self._cost = self._last - began


@dataclass
class Pool:
    """Runs one program over its tasks.

    Args:
        program: What each row does.
        tasks: Numbers of the tasks, in the order in which they enter (k,).
        images: Clean images of all tasks; gives the shape of the results.
        batch_size: Rows of the physical batch.
    """

    program: Program
    tasks: Tensor
    images: Tensor
    batch_size: int
    state: State | None = None
    entered: int = 0
    finished: int = 0

    def __post_init__(self) -> None:
        count = len(self.tasks)
        self.found = torch.zeros(count, dtype=torch.bool)
        self.broken = torch.zeros(count, dtype=torch.bool)
        self.gaps: Tensor | None = None
        self.kept: list[tuple[Tensor, Tensor]] = []
        width = int(self.tasks.max()) + 1 if count else 0
        self.place = torch.zeros(width, dtype=torch.int64)
        self.place[self.tasks] = torch.arange(count)

    def run(self, on_step: Callable[[Pool], None] = lambda _: None) -> None:
        """Steps until every task is finished; calls `on_step` after each."""
        while True:
            self._fill()
            if self.state is None or not len(self.state["task"]):
                return
            self._collect(self.program.step(self.state))
            on_step(self)

    def results(self) -> tuple[Tensor, Tensor]:
        """Places (k,) in `tasks` of those that found a point, and the points."""
        if not self.kept:
            return torch.zeros(0, dtype=torch.int64), self.images[:0].cpu()
        return (
            torch.cat([at for at, _ in self.kept]),
            torch.cat([images for _, images in self.kept]),
        )

    def share(self) -> float:
        """Share of the work done, those under way included."""
        done = float(self.finished)
        if self.state is not None:
            clock = self.state[self.program.clock].clamp(min=0)
            done += float(clock.sum()) / self.program.steps
        return done / max(1, len(self.tasks))

    def _fill(self) -> None:
        """Refills when an eighth of the rows is free: small additions are wasteful."""
        waiting = len(self.tasks) - self.entered
        present = 0 if self.state is None else len(self.state["task"])
        size = len(self.tasks) if self.program.lockstep else self.batch_size
        free = size - present
        if not waiting or (present and free < max(1, size // 8)):
            return
        taken = self.tasks[self.entered : self.entered + free]
        self.entered += len(taken)
        fresh = self.program.begin(taken)
        if not present or self.state is None:
            self.state = fresh
        else:
            old = self.state
            self.state = {k: torch.cat([old[k], fresh[k]]) for k in fresh}

    def _collect(self, done: Tensor | None) -> None:
        """Takes out the finished rows."""
        if self.state is None or done is None or not bool(done.any()):
            return
        state = self.state
        leaving = done.nonzero().flatten()
        at = self.place[state["task"][leaving].cpu()]
        found = state["found"][leaving].cpu()
        self.found[at] = found
        if "broken" in state:
            self.broken[at] = state["broken"][leaving].cpu()
        if "gaps" in state:
            left = state["gaps"][leaving].float().cpu()
            if self.gaps is None:
                self.gaps = left.new_full((len(self.tasks), left.shape[1]), torch.inf)
            self.gaps[at] = left
        if bool(found.any()):
            images = state["image"][leaving].cpu()
            self.kept.append((at[found], images[found].contiguous()))
        self.finished += len(leaving)
        staying = (~done).nonzero().flatten()
        self.state = {k: v[staying] for k, v in state.items()}

    def save(self) -> State:
        """All that is needed to go on."""
        at, images = self.results()
        saved = {f"row.{k}": v for k, v in (self.state or {}).items()}
        met = {} if self.gaps is None else {"gaps": self.gaps}
        return (
            saved
            | met
            | {
                "tasks": self.tasks,
                "counts": torch.tensor([self.entered, self.finished]),
                "found": self.found,
                "broken": self.broken,
                "kept_at": at,
                "kept": images,
            }
        )

    def restore(self, saved: State) -> None:
        """Goes on where `save` was called."""
        rows = {k[4:]: v for k, v in saved.items() if k.startswith("row.")}
        device = self.images.device
        self.state = {k: v.to(device) for k, v in rows.items()} or None
        self.entered, self.finished = saved["counts"].tolist()
        self.found, self.broken = saved["found"], saved["broken"]
        self.gaps = saved.get("gaps")
        self.kept = [(saved["kept_at"], saved["kept"])]
