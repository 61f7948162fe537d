"""Names the process that the others wait for, of several that train together.

Backends find out late that a process does not come, and not which. Here each counts in
torch's store where it meets the others, and a thread of each says there that it lives.
Who came to fewer meetings hangs elsewhere; who gives no sign of life was stopped or
killed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from zoo.budgets import plain_reason
from zoo.errors import RobrepError
from zoo.processes import behind, meeting_place, patience, processes

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

BEAT = 1.0
"""Seconds between two signs of life."""
BEATS = 3
"""Without a sign of life after which a process counts as dead."""


class Watch:
    """Of one process over the others; use as a context.

    Args:
        store: That all of them see.
        rank: Of this process.
        world: How many there are.
        wait: How long a meeting may take.
    """

    def __init__(
        self, store: Store | Any, rank: int, world: int, wait: timedelta
    ) -> None:
        self.store, self.rank, self.world, self.wait = store, rank, world, wait
        self.meetings = 0
        self.since: float | None = None
        """When the meeting began in which this process is."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Inside, the others are waited for; meetings may lie in each other.

        Raises:
            RobrepError: one of them ended; says which.
        """
        self.meetings += 1
        self.store.set(f"at/{self.rank}", str(self.meetings))
        before, self.since = self.since, time.monotonic()
        try:
            yield
        except RuntimeError as error:
            if not _of_backend(error):
                raise
            raise RobrepError(self._said(f"ended ({plain_reason(error)})")) from None
        finally:
            self.since = before

    def _look(self) -> None:
        """The thread: signs of life, and an end to waiting.

        It ends the process, since no backend lets go of a thread that waits.
        """
        beats, limit = 0, self.wait.total_seconds()
        while not self._ended.wait(min(BEAT, limit / 10)):
            beats += 1
            try:
                self.store.set(f"alive/{self.rank}", str(beats))
            except RuntimeError:
                return  # the store went with its process, and torchrun ends this one
            since = self.since
            if since is not None and time.monotonic() - since > limit:
                text = self._said(f"ended or hung, waited for {limit:.0f} s")
                click.echo(f"Error: {text}", err=True)
                os._exit(1)

    def _said(self, what: str) -> str:
        absent = self._absent()
        who = processes(absent) if absent else "another process"
        return f"{who} of this training {what}; start all of them again"

    def _absent(self) -> list[int]:
        """Who came to fewer meetings; if nobody did, who gives no sign of life."""
        late = behind(self.store, self.world, self.meetings)
        if late:
            return late
        try:
            before = self._signs()
            time.sleep(BEATS * BEAT)
            after = self._signs()
        except RuntimeError:
            return []
        pairs = zip(before, after, strict=True)
        still = [rank for rank, (old, new) in enumerate(pairs) if old == new]
        return [rank for rank in still if rank != self.rank]

    def _signs(self) -> list[object]:
        keys = [f"alive/{rank}" for rank in range(self.world)]
        return [
            self.store.get(key) if self.store.check([key]) else None for key in keys
        ]


def watch() -> Watch | None:
    """Over the processes that torchrun started; None for a single one."""
    place = meeting_place("pretrain")
    if place is None:
        return None
    store, rank, world = place
    return Watch(store, rank, world, patience())


def _of_backend(error: RuntimeError) -> bool:
    """Whether gloo or NCCL said it, and not the work between."""
    import torch.distributed as dist

    known = isinstance(error, (dist.DistError, dist.DistBackendError))
    return known or "gloo" in str(error).lower() or "Connection" in str(error)
