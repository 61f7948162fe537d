"""Images read by several processes: torch's DataLoader, in the order asked for.

A process decodes a few images at a time, about a mebibyte of pixels: shared memory
stays small however large a batch is. A thread puts batches together, or reads them
itself where there are no such processes, while the one before is used. Which process
read an image changes neither it nor the order.
"""

from __future__ import annotations

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
        loader = iter(_loader(_Parts(data, parts), data.workers))
        return lambda number: _batch(loader, counts[number], data.shape, pinned)

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


def _batch(
    loader: Iterator[Any], count: int, shape: tuple[int, int, int], pinned: bool
) -> Tensor:
    """Put together from the next `count` parts."""
    parts = [_next(loader) for _ in range(count)]
    size = (sum(map(len, parts)), *shape)
    whole = torch.empty(size, dtype=parts[0].dtype, pin_memory=pinned)
    return torch.cat(parts, out=whole)


class _Parts(torch.utils.data.Dataset[Any]):
    """Parts by number; what goes wrong with an image is handed over as text."""

    def __init__(self, data: Images, parts: list[Any]) -> None:
        self.data, self.parts = data, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Any:
        try:
            return self.data.integers(self.parts[number])
        except UserError as error:
            return str(error)


class _Looks(_Parts):
    """Parts by number, of which only what cannot be read is handed over."""

    def __getitem__(self, number: int) -> Any:
        if isinstance(super().__getitem__(number), Tensor):
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
