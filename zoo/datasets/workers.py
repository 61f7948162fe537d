"""Images read by several processes: torch's DataLoader, in the order asked for.

A process decodes a few images at a time, about a mebibyte of pixels, into memory
shared before it began: a few mebibytes a process, however large a batch is, and none
of a container's /dev/shm. A thread puts batches together, or reads them itself where
there are no such processes, while the one before is used. Which process read an image
changes neither it nor the order.
"""

from __future__ import annotations

import mmap
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.budgets import plain_reason
from zoo.errors import RobrepError, UserError

PART_BYTES = 1 << 20
"""Of pixels that a process hands over at once, or one image."""
WAITING = 4
"""Parts that each process keeps ready."""
SLOTS = WAITING + 2
"""Places for parts of each process. DataLoader asks a process for one part more before
it hands one over, so that WAITING and that one are in use at once; one is spare."""
GONE = (RuntimeError, ConnectionError, EOFError, FileNotFoundError)
"""How a process shows that it died: to DataLoader's watch, or, where it had announced
a part that was not fetched yet, by the socket that was to hand it over."""
Rows = Sequence[int] | slice | Tensor


class Images(Protocol):
    """What is read; `zoo.datasets.base.Dataset`."""

    shape: tuple[int, int, int]
    workers: int
    """Processes that read; 0 for none but the caller's own."""

    def __len__(self) -> int: ...

    def integers(self, indices: Rows) -> Tensor:
        """Images as published, (n, C, H, W)."""


def check_workers(workers: int) -> None:
    """Raises `UserError` for a number of processes that cannot read here."""
    if workers < 0:
        raise UserError(f"the number of workers must be zero or more, not {workers}")
    if workers and "fork" not in multiprocessing.get_all_start_methods():
        raise UserError(
            "images cannot be read by processes of their own on this system; use "
            "--workers 0"
        )


def read(
    data: Images, batches: Sequence[Rows], *, pinned: bool = False
) -> Iterator[Tensor]:
    """Integers of each batch, (n, C, H, W), one batch ahead of the caller.

    Args:
        data: Of which images.
        batches: Which images, batch by batch.
        pinned: In memory that a GPU copies from while it computes.

    Raises:
        UserError: an image cannot be read; names it.
        RobrepError: a process died.
    """
    if not len(batches):
        return
    with ThreadPoolExecutor(1) as reader:
        # Made in the thread: in the main one, a process that dies interrupts whatever
        # is computed at that moment.
        fetch = reader.submit(_fetch, data, batches, pinned).result()
        ahead = reader.submit(fetch, 0)
        for number in range(1, len(batches)):
            pixels, ahead = ahead.result(), reader.submit(fetch, number)
            yield pixels
        yield ahead.result()


def broken(data: Images) -> dict[int, str]:
    """Images that cannot be read, by their number, and why; reads all of them."""
    counts, parts = _parted(data, [slice(0, len(data))])
    looks = _Looks(data, parts)
    found: dict[int, str] = {}
    if not data.workers:
        for number in range(counts[0]):
            found |= looks[number]
        return found
    with ThreadPoolExecutor(1) as reader:
        loader = reader.submit(lambda: iter(_loader(looks, data.workers))).result()
        for _ in range(counts[0]):
            found |= reader.submit(_next, loader).result()
    return found


def _fetch(
    data: Images, batches: Sequence[Rows], pinned: bool
) -> Callable[[int], Tensor]:
    """Gives the batches, which are to be asked for in order."""
    if data.workers:
        counts, parts = _parted(data, batches)
        source = _Parts(data, parts)
        loader = iter(_loader(source, data.workers))
        return lambda number: _batch(source, loader, counts[number], pinned)

    def one(number: int) -> Tensor:
        pixels = data.integers(batches[number])
        return pixels.pin_memory() if pinned else pixels

    return one


def _parted(data: Images, batches: Sequence[Rows]) -> tuple[list[int], list[Any]]:
    """How many parts each batch has, and all of them."""
    each = max(1, PART_BYTES // prod(data.shape))
    counts: list[int] = []
    parts: list[Any] = []
    for rows in batches:
        own: Any = rows
        if isinstance(rows, slice):
            own = range(*rows.indices(len(data)))
        elif isinstance(rows, Tensor):
            own = rows.numpy()
        found = [own[start : start + each] for start in range(0, len(own), each)]
        counts.append(len(found))
        parts += found
    return counts, parts


def _batch(source: _Parts, loader: Iterator[Any], count: int, pinned: bool) -> Tensor:
    """Put together from the next `count` parts.

    Each is copied before the next is asked for, which may take its place.
    """
    numbers = range(source.taken, source.taken + count)
    size = (sum(len(source.parts[number]) for number in numbers), *source.data.shape)
    source.taken += count
    whole, at = torch.empty(0), 0
    for _ in numbers:
        part = source.seen(_next(loader))
        if not at:
            whole = torch.empty(size, dtype=part.dtype, pin_memory=pinned)
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


class _Parts(torch.utils.data.Dataset[Any]):
    """Parts by number; what goes wrong with an image is handed over as text.

    Pixels stay where the process put them, in memory that all share: handing over a
    tensor costs a file, a connection and fresh pages each time.
    """

    def __init__(self, data: Images, parts: list[Any]) -> None:
        self.data, self.parts = data, parts
        self.taken = self.turn = 0
        longest = max(map(len, parts), default=0)
        # Of 16 bits at most; what is larger is handed over as it is.
        room = -(-2 * longest * prod(data.shape) // 64) * 64
        places = max(1, data.workers) * SLOTS
        memory = mmap.mmap(-1, max(1, places * room))
        flat = torch.frombuffer(memory, dtype=torch.uint8)[: places * room]
        self.places = flat.view(-1, SLOTS, room)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Any:
        pixels = self._pixels(number)
        process = torch.utils.data.get_worker_info()
        if isinstance(pixels, str) or process is None:
            return pixels
        if pixels.nbytes > self.places.shape[2]:
            return pixels
        at = (process.id, self.turn % SLOTS, pixels.shape, pixels.dtype)
        self.turn += 1
        self.seen(at).copy_(pixels)
        return at

    def seen(self, part: Any) -> Tensor:
        """The pixels of a part that was handed over, until its place is taken."""
        if isinstance(part, Tensor):
            return part
        process, slot, shape, dtype = part
        size = prod(shape) * dtype.itemsize
        return self.places[process, slot, :size].view(dtype).view(shape)

    def _pixels(self, number: int) -> Tensor | str:
        try:
            return self.data.integers(self.parts[number])
        except UserError as error:
            return str(error)


class _Looks(_Parts):
    """Parts by number, of which only what cannot be read is handed over."""

    def __getitem__(self, number: int) -> Any:
        if isinstance(self._pixels(number), Tensor):
            return {}
        found = {}
        for row in self.parts[number]:
            try:
                self.data.integers([row])
            except UserError as error:
                found[int(row)] = str(error)
        return found


def _loader(parts: _Parts, workers: int) -> torch.utils.data.DataLoader[Any]:
    return torch.utils.data.DataLoader(
        parts,
        batch_size=None,
        num_workers=min(workers, len(parts)),
        prefetch_factor=WAITING,
        collate_fn=_unchanged,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # or it draws from the global one
    )


def _unchanged(part: Any) -> Any:
    return part


def _next(loader: Iterator[Any]) -> Any:
    try:
        part = next(loader)
    except GONE as error:
        raise RobrepError(
            f"a process that reads images died ({plain_reason(error)}); with fewer "
            "--workers, the same command goes on from where it was"
        ) from None
    if isinstance(part, str):
        raise UserError(part)
    return part
