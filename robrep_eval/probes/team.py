"""Processes that fit one probe together; by default there is one.

Sums are taken over parts of the data in a fixed order, wherever each part was computed,
so that two processes come to the numbers of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from zoo.budgets import plain_reason
from zoo.errors import RobrepError
from zoo.processes import behind, processes

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup, Store  # type: ignore[attr-defined]


class Queue(Protocol):
    """Work that is shared out; `robrep_eval.run.shards.Shards`."""

    rank: int
    world: int

    def chunks(self, count: int, work: str = ...) -> Iterator[int]:
        """Numbers of the parts that this process is to do."""

    def gather(self, work: str = ..., *, everyone: bool = ...) -> None:
        """Waits until all processes have come here."""


class Team:
    """One process among those that fit a probe.

    Args:
        queue: Shares out what can be done in any order; None for one process.
        group: In which sums are taken, with gloo.
        store: Where each process says how many of them it came to.
    """

    def __init__(
        self,
        queue: Queue | None = None,
        group: ProcessGroup | None = None,
        store: Store | Any = None,
    ) -> None:
        self.queue, self.group, self.store = queue, group, store
        self.meetings = 0
        self.rank = 0 if queue is None else queue.rank
        self.world = 1 if queue is None else queue.world

    @property
    def leads(self) -> bool:
        """True for the one process that solves; the others compute sums for it."""
        return self.rank == 0

    def each(self, count: int, work: str) -> Iterator[int]:
        """Numbers below `count` that this process is to do; returns when all are done.

        Args:
            count: How many there are.
            work: Tells them from others; the same in all processes.
        """
        if self.queue is None:
            yield from range(count)
            return
        yield from self.queue.chunks(count, work)
        self.queue.gather(work, everyone=True)

    def total(
        self, count: int, part: Callable[[int], Tensor], shape: Sequence[int]
    ) -> Tensor:
        """The sum of part(0) to part(count - 1), in this order, in all processes.

        Args:
            count: How many parts there are.
            part: Computes one, float64; called for this process's own.
            shape: Of each.
        """
        if self.world == 1:
            found = part(0)
            for number in range(1, count):
                found = found + part(number)
            return found
        parts = torch.zeros(count, *shape, dtype=torch.float64)
        for number in range(self.rank, count, self.world):
            parts[number] = part(number)
        with self._meeting():
            # Each is added to zeros, which rounds nothing.
            dist.all_reduce(parts, group=self.group)
        found = parts[0]
        for value in parts[1:]:
            found = found + value
        return found

    def told(self, values: Tensor) -> Tensor:
        """The leader's values, in all processes; in place."""
        if self.world > 1:
            with self._meeting():
                dist.broadcast(values, 0, group=self.group)
        return values

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """One error for all the ways in which others can fail to come; names them."""
        self.meetings += 1
        if self.store is not None:
            self.store.set(f"at/{self.rank}", str(self.meetings))
        try:
            yield
        except RuntimeError as error:
            raise RobrepError(
                f"while the probe was fitted, {self._absent()} of this evaluation "
                f"ended or hung ({plain_reason(error)}); start all of them again"
            ) from None

    def _absent(self) -> str:
        """The processes that came to fewer meetings than this one, in words."""
        late = behind(self.store, self.world, self.meetings)
        return processes(late) if late else "another process"


ALONE = Team()
