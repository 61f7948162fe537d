"""Progress on stderr, where somebody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WORTH_A_BAR = 1 << 20


@contextmanager
def activity(what: str | None) -> Iterator[None]:
    """Says what is going on while it does, and nothing afterwards.

    Args:
        what: Shown as it is, beside a clock of dots; None: nothing is.
    """
    if what is None or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(what)):
        yield


@contextmanager
def byte_bar(what: str, size: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how many bytes are there.

    Args:
        what: Shown beside the bar.
        size: Bytes in all; small files get no bar.
    """
    if size < WORTH_A_BAR or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=size)
        yield lambda have: progress.update(task, completed=have)
