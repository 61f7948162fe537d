"""Whether a folder can be written, asked before the work whose result goes there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from zoo.errors import UserError


def check_writable(folder: Path, instead: str) -> None:
    """Tries to make a file where `folder` is, or where it would be made.

    The file has no name where the system allows that; nothing is left behind. It is no
    guarantee: it is empty, and the place may change before the work is done.

    Args:
        folder: Need not exist.
        instead: What to do about it, ends the message.

    Raises:
        UserError: a file is in the way, no permission, a disk that cannot be written,
            or a name that cannot be.
    """
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):
            pass
    except (OSError, ValueError) as error:  # the latter where the path has a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write to {folder}: {reason}; {instead}") from None


def _nearest(folder: Path) -> Path:
    """The folder itself, or else what it would be made in; may be no folder at all."""
    for place in (folder, *folder.parents):
        try:
            place.lstat()
        except FileNotFoundError:
            continue
        return place
    return folder
