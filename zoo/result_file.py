"""How a result lies in files: a record for people, and columns beside it.

result.json                      all but the columns; names their file and its SHA-256
columns-XXXXXXXX.safetensors     one value per example and column, X from its SHA-256

The file's name follows from its content, so that a record and its columns change
together: whoever is interrupted leaves the old pair. See `zoo.columns` for the format.

Results of schema 1 hold their columns inside result.json; they are read as well.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.columns import put
from zoo.errors import UserError
from zoo.files import read_json, sha256_file
from zoo.measurements import Measurements
from zoo.records import Result
from zoo.result_writer import COLUMNS, PATTERN, RESULT, ColumnsFile, write_result
from zoo.schema import check_version, validated

__all__ = [
    "COLUMNS",
    "PATTERN",
    "RESULT",
    "ColumnsFile",
    "read_result",
    "write_result",
]


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
