"""How a result is written: a record for people, and columns beside it.

The file of columns is named by its content, so that a record and its columns change
together: whoever is interrupted leaves the old pair. `zoo.result_file` reads them.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from zoo.columns import take
from zoo.errors import UserError
from zoo.files import atomic, read_json, write_text
from zoo.schema import FileName, Record, Sha256, as_text

RESULT = "result.json"
COLUMNS = re.compile(r"columns-[0-9a-f]{8}\.safetensors")
PATTERN = f"columns-{'[0-9a-f]' * 8}.safetensors"
"""Of names of files of columns, as `Path.glob` takes it."""


class ColumnsFile(Record):
    """Where the columns are."""

    file: FileName
    """Beside the record."""
    file_sha256: Sha256


def write_result(folder: Path, result: Record) -> str:
    """Writes the record and its columns into a folder; the columns before them go.

    Args:
        folder: Where; it exists.
        result: A `zoo.records.Result`.

    Returns:
        Name of the file of columns.
    """
    content = result.model_dump(mode="json")
    content["measurements"] = result.model_dump(
        mode="json", include={"measurements"}, exclude_none=True
    )["measurements"]
    body = take(content, type(result))
    digest = hashlib.sha256(body).hexdigest()
    path = folder / f"columns-{digest[:8]}.safetensors"
    with atomic(path) as temporary:
        temporary.write_bytes(body)
    old = _columns_before(folder)
    beside = ColumnsFile(file=path.name, file_sha256=digest)
    content["columns"] = beside.model_dump(mode="json")
    write_text(folder / RESULT, as_text(content) + "\n")
    if old is not None and old != path:
        old.unlink(missing_ok=True)
    return path.name


def _columns_before(folder: Path) -> Path | None:
    """The file of columns that the record in a folder names, if it is such a file."""
    try:
        named = read_json(folder / RESULT)["columns"]["file"]
    except (UserError, LookupError, TypeError):
        return None
    return (
        folder / named if isinstance(named, str) and COLUMNS.fullmatch(named) else None
    )
