"""How a result lies in files: a record for people, and columns beside it.

result.json                      all but the columns; names their file and its SHA-256
columns-XXXXXXXX.safetensors     one value per example and column, X from its SHA-256

The file's name follows from its content, so that a record and its columns change
together: whoever is interrupted leaves the old pair. See `zoo.columns` for the format.

Results of schema 1 hold their columns inside result.json; they are read as well.
Imports no torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.columns import put, take
from zoo.errors import UserError
from zoo.files import atomic, read_json, sha256_file, write_text
from zoo.measurements import Measurements
from zoo.records import Result
from zoo.schema import FileName, Record, Sha256, as_text, check_version, validated

RESULT = "result.json"
COLUMNS = re.compile(r"columns-[0-9a-f]{8}\.safetensors")
PATTERN = f"columns-{'[0-9a-f]' * 8}.safetensors"
"""Of names of files of columns, as `Path.glob` takes it."""


class ColumnsFile(Record):
    """Where the columns are."""

    file: FileName
    """Beside the record."""
    file_sha256: Sha256


def write_result(folder: Path, result: Result) -> str:
    """Writes the record and its columns into a folder; the columns before them go.

    Returns:
        Name of the file of columns.
    """
    content = result.model_dump(mode="json")
    content["measurements"] = result.measurements.model_dump(
        mode="json", exclude_none=True
    )
    body = take(content, Result)
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


def read_result(
    path: str | Path, beside: Callable[[str], Path] | None = None
) -> Result:
    """A result with its columns.

    Args:
        path: Of result.json, or of its folder.
        beside: Gives the path of a file beside it; by default in the same folder.

    Raises:
        UserError: a file is missing, damaged, of another schema version, or not what
            the record names; says which field or column is wrong.
    """
    path = Path(path)
    path = path / RESULT if path.is_dir() else path
    content = read_json(path)
    if check_version(content, (1, 2), str(path)) == 1:
        return validated(_from_schema_1(content), Result, str(path))
    named = validated(content.pop("columns", None), ColumnsFile, f"{path}: columns")
    file = path.parent / named.file if beside is None else beside(named.file)
    _check_file(file, named, path)
    put(content, Result, file)
    return validated(content, Result, str(path))


def _from_schema_1(content: dict[str, Any]) -> dict[str, Any]:
    """Measurements were called extras; what this robrep does not know is left out."""
    rest = dict(content)
    extras = rest.pop("extras", {})
    if isinstance(extras, dict):
        extras = {k: v for k, v in extras.items() if k in Measurements.model_fields}
    return {**rest, "schema_version": 2, "measurements": extras}


def _check_file(file: Path, named: ColumnsFile, record: Path) -> None:
    if not file.is_file():
        raise UserError(f"no file {file}, which holds the columns of {record}")
    if sha256_file(file) != named.file_sha256:
        raise UserError(
            f"{file} does not have the SHA-256 that {record} states; it is damaged or "
            "belongs to another result"
        )
