"""Several processes on one work: `torchrun --nproc-per-node N -m zoo verify ...`.

They meet in torch's own store. Each says there how far it is, so that one which ended
or hangs is named by those that wait for it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.budgets import plain_reason
from zoo.errors import MissingDatasetError, RobrepError, UserError, VerificationError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

Found = TypeVar("Found")
PATIENCE = timedelta(minutes=30)
"""How long a process waits for another that does nothing, unless people say."""
PATIENCE_IN = "ROBREP_PATIENCE"
"""Where they say it, in seconds."""
POLL_SECONDS = 0.05


class AbsentError(RobrepError):
    """Another process of the same work ended or hangs."""


def patience() -> timedelta:
    """How long a process waits for another.

    Raises:
        UserError: ROBREP_PATIENCE is no number of seconds above 0.
    """
    text = os.environ.get(PATIENCE_IN)
    if not text:
        return PATIENCE
    try:
        found = timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        found = timedelta(0)
    if found <= timedelta(0):
        raise UserError(
            f"{PATIENCE_IN} is '{text}'; give the seconds that a process is to wait "
            f"for another, such as {PATIENCE.total_seconds():.0f}"
        )
    return found


def leading() -> bool:
    """Whether this process is the only one, or the leader under torchrun."""
    return os.environ.get("RANK", "0") == "0"


def meeting_place(name: str) -> tuple[Store, int, int] | None:
    """A store that all processes see, the number of this one, and how many there are.

    None for a single process. Counters of an earlier attempt (torchrun's
    `--max-restarts`) are not seen.

    Args:
        name: Tells what is stored for one purpose from the rest.

    Raises:
        UserError: the environment speaks of several processes, but not of where they
            meet.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, world = next(rendezvous("env://"))
    except ValueError as error:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but the processes cannot meet "
            f"({error}); start them by torchrun, or unset WORLD_SIZE"
        ) from None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"robrep/{attempt}/{name}", store), rank, world


def processes(ranks: Sequence[int]) -> str:
    """Processes by number, in words."""
    return f"process{'es' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def behind(store: Store | Any, world: int, meetings: int) -> list[int]:
    """Processes that came to fewer meetings, which each counts in "at/RANK"."""
    late = []
    with suppress(RuntimeError):  # the store may have gone with its process
        for rank in range(world) if store is not None else ():
            came = store.check([f"at/{rank}"])
            if not came or int(store.get(f"at/{rank}")) < meetings:
                late.append(rank)
    return late


@dataclass
class Company:
    """This process among those that check one thing together; by default the only one.

    A check is made of `agreed`; inside, work is taken by `share`, and what it came to
    is exchanged by `all`, as often and in the same order in all processes.
    """

    rank: int = 0
    world: int = 1
    store: Store | Any = None
    wait: timedelta = PATIENCE
    name: int = 0
    """The number under which others wait for this process."""
    checks: int = 0
    meetings: int = 0
    pulses: list[int] = field(default_factory=lambda: [0])

    @classmethod
    def from_environment(cls, work: str) -> Company:
        """As torchrun set it up; a single process otherwise."""
        place = meeting_place(work)
        if place is None:
            return cls()
        store, rank, world = place
        return cls(rank, world, store, patience(), rank)

    @property
    def leads(self) -> bool:
        """True for the one process that reports."""
        return self.rank == 0

    def apart(self) -> Company:
        """For a check that this process makes alone, heard of by the others."""
        return replace(self, rank=0, world=1)

    def share(self, count: int) -> Iterator[int]:
        """Numbers below `count` that this process is to do."""
        for number in range(self.rank, count, self.world):
            yield number
            self.pulse()

    def all(self, found: Found) -> list[Found]:
        """What each process found, in order; made of numbers, text, lists and None."""
        if self.world == 1:
            return [found]
        self.meetings += 1
        key = f"{self.checks}/{self.meetings}"
        self._tell(key, found)
        return [self._hear(rank, key) for rank in range(self.world)]

    def agreed(self, check: Callable[[], Found]) -> Found:
        """What `check` returns here; in the leader, if it failed in no process.

        Raises:
            RobrepError: what it raises here, or its failure in another process.
            AbsentError: a process ended or hangs.
        """
        if self.world == 1:
            return check()
        self.checks += 1
        self.meetings = 0
        end = f"{self.checks}/end"
        try:
            found = check()
        except AbsentError:
            raise
        except Exception as error:
            unchecked = isinstance(error, MissingDatasetError)
            self._tell(end, [str(error) or type(error).__name__, unchecked])
            raise
        self._tell(end, None)
        for rank in range(self.world) if self.leads else ():
            self._refuse(rank, self._hear(rank, end))
        return found

    def queue(self, count: int) -> Iterator[int]:
        """Numbers below `count` that this process is to do apart, one at a time."""
        while (number := self._next()) < count:
            yield number
            self.pulse()

    def tell(self, number: int, found: object) -> None:
        """What the work of that number of the queue came to; as `all` takes it."""
        self._tell(f"done/{number}", found)

    def told(self, number: int) -> Any:
        """The same in the leader, once somebody took that number; waits for it."""
        return self._hear(self._taker(number), f"done/{number}", mine=True)

    def has_told(self, number: int) -> bool:
        """Whether `told` would not wait."""
        if not self._has(f"taken/{number}"):
            return False
        return self._has(f"done/{number}/{self._taker(number)}")

    @contextmanager
    def parting(self) -> Iterator[None]:
        """What all do together; the others stay until the leader has heard them."""
        try:
            yield
        finally:
            if self.leads and self.world > 1:
                self._tell("parted", None)
        if not self.leads:
            self._hear(0, "parted", mine=True)

    def pulse(self) -> None:
        """Lets the others know that this process goes on."""
        if self.store is None:
            return
        self.pulses[0] += 1
        with self._reached():
            self.store.set(f"at/{self.name}", str(self.pulses[0]))

    def _next(self) -> int:
        with self._reached():
            number: int = self.store.add("next", 1) - 1
            self.store.set(f"taken/{number}", str(self.name))
        return number

    def _taker(self, number: int) -> int:
        with self._reached():
            return int(self.store.get(f"taken/{number}"))

    def _tell(self, key: str, found: object) -> None:
        with self._reached():
            self.store.set(f"{key}/{self.name}", json.dumps(found))
        self.pulse()

    def _hear(self, rank: int, key: str, *, mine: bool = False) -> Any:
        """Waits as long as that process goes on; `mine`: not part of a check."""
        where, end = f"{key}/{rank}", f"{self.checks}/end/{rank}"
        seen, since = self._at(rank), time.monotonic()
        while not self._has(where):
            ended = not mine and where != end and self._has(end)
            if ended and not self._has(where):  # else it came here first
                self._refuse(rank, self._read(end))
            if (now := self._at(rank)) != seen:
                seen, since = now, time.monotonic()
                self.pulse()  # others may wait for this one, which waits
            elif time.monotonic() - since > self.wait.total_seconds():
                raise AbsentError(
                    f"{processes([rank])} of this verification ended or hung: it "
                    f"did nothing for {self.wait.total_seconds():.0f} s; start all of "
                    "them again"
                )
            time.sleep(POLL_SECONDS)
        return self._read(where)

    def _refuse(self, rank: int, failure: list[Any] | None) -> None:
        """Raises what another process failed with."""
        if failure is not None and rank != self.rank:
            reason, unchecked = failure
            kind = MissingDatasetError if unchecked else VerificationError
            raise kind(f"{processes([rank])}: {reason}")

    def _has(self, key: str) -> bool:
        with self._reached():
            return bool(self.store.check([key]))

    def _read(self, key: str) -> Any:
        with self._reached():
            return json.loads(self.store.get(key))

    def _at(self, rank: int) -> object:
        key = f"at/{rank}"
        with self._reached():
            return self.store.get(key) if self.store.check([key]) else None

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """One error if the store went with the process that held it."""
        try:
            yield
        except RuntimeError as error:
            raise AbsentError(
                f"another process of this verification ended ({plain_reason(error)}); "
                "start all of them again"
            ) from None


ALONE = Company()
"""The only process."""
