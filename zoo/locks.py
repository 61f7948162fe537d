"""One process at a time in a run folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from zoo.errors import UserError
from zoo.paths import home


@contextmanager
def in_use(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes out of a run folder until the block ends, or the process.

    The lock lies in robrep's own folder, so that nothing is written to one that turns
    out to be somebody else's.

    Args:
        folder: Need not exist.
        wait: For the process that has it, instead of the error.

    Raises:
        UserError: another process has it; says which, and since when.
    """
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:24]
    place = home() / "locks"
    place.mkdir(parents=True, exist_ok=True)
    note = place / f"{key}.holder"
    lock = FileLock(place / f"{key}.lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise UserError(
            f"{folder} is in use by {_holder(note)}; let it end, wait for it with "
            "--wait, or choose another --output"
        ) from None
    try:
        note.write_text(f"process {os.getpid()} since {datetime.now():%Y-%m-%d %H:%M}")
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _holder(note: Path) -> str:
    try:
        return note.read_text()
    except OSError:  # it is beginning or ending right now
        return "another process"
