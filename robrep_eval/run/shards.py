"""Several processes on one evaluation: `torchrun --nproc-per-node N -m robrep_eval`.

The processes share a run folder and a queue: each takes the next chunk by counting up
one number in torch's own store. Chunk files are the truth, so when a process dies and
torchrun starts all of them again (`--max-restarts 3`), finished chunks are skipped,
and chunks under way go on from their journals. A process group is needed only for the
sums of the linear probe.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from robrep_eval.probes.team import ALONE, Team
from zoo.budgets import plain_reason
from zoo.errors import RobrepError
from zoo.processes import meeting_place, patience

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

PATIENCE = timedelta(days=30)
"""How long one process waits for another: torchrun ends them all if one fails."""
POLL_SECONDS = 0.05


@dataclass
class Shards:
    """This process among those of the evaluation; by default the only one."""

    rank: int = 0
    world: int = 1
    store: Store | Any = None
    restarted: bool = False
    """True if torchrun has started the processes again after a failure."""

    @classmethod
    def from_environment(cls, run: str = "") -> Shards:
        """As torchrun set it up; a single process otherwise.

        Args:
            run: Tells the evaluations of one command apart.
        """
        place = meeting_place(run)
        if place is None:
            return cls()
        store, rank, world = place
        restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
        return cls(rank, world, store, restarted)

    @property
    def leader(self) -> bool:
        """True for the one process that prepares, merges and reports."""
        return self.rank == 0

    def chunks(self, count: int, work: str = "all") -> Iterator[int]:
        """Numbers of the chunks that this process is to do, one at a time.

        Args:
            count: How many there are.
            work: Tells two kinds of work on the same chunks apart.
        """
        if self.store is None:
            yield from range(count)
            return
        while (number := self.store.add(f"next/{work}", 1) - 1) < count:
            yield number

    def announce(self, event: str, what: str = "1") -> None:
        """Tells the others that something is ready."""
        if self.store is not None:
            self.store.set(event, what)

    def wait(self, event: str) -> str:
        """Waits for another process to announce something; returns what it said."""
        if self.store is None:
            return "1"
        self.store.wait([event], PATIENCE)
        return str(self.store.get(event).decode())

    @contextmanager
    def team(self, work: str, wait: timedelta | None = None) -> Iterator[Team]:
        """All processes, for sums that they take together; a single one is a team too.

        Args:
            work: Tells two teams of one evaluation apart.
            wait: How long a process waits for the others, each time that they meet; by
                default `zoo.processes.patience`.

        Raises:
            RobrepError: a process does not come; says which.
        """
        if self.store is None:
            yield ALONE
            return
        import torch.distributed as dist
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]

        wait = patience() if wait is None else wait
        store = PrefixStore(f"team/{work}", self.store)
        dist.init_process_group(
            "gloo", store=store, rank=self.rank, world_size=self.world, timeout=wait
        )
        try:
            try:
                dist.monitored_barrier(timeout=wait, wait_all_ranks=True)
            except RuntimeError as error:
                raise RobrepError(
                    f"processes did not come to {work}: {plain_reason(error)}; "
                    "end all of them and start again"
                ) from None
            yield Team(self, dist.group.WORLD, store)
        finally:
            dist.destroy_process_group()

    def gather(self, work: str = "all", *, everyone: bool = False) -> None:
        """The leader, or everyone, waits until all processes have come here."""
        if self.store is None:
            return
        here = f"arrived/{work}"
        self.store.add(here, 1)
        while (everyone or self.leader) and self.store.add(here, 0) < self.world:
            time.sleep(POLL_SECONDS)
