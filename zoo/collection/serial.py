"""Whether a collection shows an older index than the one that was there before."""

from __future__ import annotations

import hashlib
import warnings
from contextlib import suppress

from zoo.collection.index import Index
from zoo.errors import Notice, UserError
from zoo.files import read_json, write_json
from zoo.paths import home
from zoo.plain_text import without_secrets


def goes_back(uri: str, index: Index) -> bool:
    """Compares serial numbers with the highest seen so far, and keeps that.

    Args:
        uri: Of the collection; a revision that is named has a number of its own.
        index: As it is there now.

    Returns:
        True after a warning (`Notice`), if it is older.
    """
    digest = hashlib.sha256(uri.encode()).hexdigest()[:24]
    path = home() / "zoo" / "serials" / f"{digest}.json"
    try:
        seen = read_json(path) if path.is_file() else 0
    except UserError:
        seen = 0
    if isinstance(seen, int) and index.serial < seen:
        warnings.warn(
            f"the index of {without_secrets(uri)} is older than the one that was there "
            f"before (its serial number went back from {seen} to {index.serial}): "
            "something was withdrawn, or somebody shows you an old state",
            Notice,
            stacklevel=2,
        )
        return True
    if index.serial != seen:
        with suppress(OSError):  # a home that cannot be written to remembers nothing
            write_json(path, index.serial)
    return False
