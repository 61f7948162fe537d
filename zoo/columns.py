"""The columns of a record, one value per example, as one safetensors file.

Fields marked with `zoo.schema.Column` are columns: integers (n,), float64 (n,), or
uint8 codes (n,) whose words stand in the file's metadata. A tensor is named after its
field, "examples/label", or "examples/outcomes/NAME" in a field that holds several.
Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import numpy as np
import numpy.typing as npt

from zoo import budgets
from zoo.errors import UserError
from zoo.files import parse_json
from zoo.schema import Column, Record

Array = npt.NDArray[Any]
CODES = "codes"
"""Key of the metadata: the words of each coded column, as JSON."""
INTEGERS = (np.uint8, np.int16, np.int32, np.int64)
DTYPES = {
    Column.INTEGER: ("U8", "I16", "I32", "I64"),
    Column.REAL: ("F64",),
    Column.CODE: ("U8",),
}
"""What may be read, as safetensors calls it."""


class Place(NamedTuple):
    """A field that is a column, or several."""

    path: tuple[str, ...]
    """Names of the fields that lead to it."""
    column: Column
    several: bool
    """Whether it is a dict of columns."""


def places(kind: type[Record], path: tuple[str, ...] = ()) -> Iterator[Place]:
    """All columns of a kind of record and of the records inside it."""
    for name, field in kind.model_fields.items():
        here, annotation = (*path, name), field.annotation
        marks = [mark for mark in field.metadata if isinstance(mark, Column)]
        if marks:
            yield Place(here, marks[0], get_origin(annotation) is dict)
        for inner in (annotation, *get_args(annotation)):  # X, or X | None
            if isinstance(inner, type) and issubclass(inner, Record):
                yield from places(inner, here)


def take(content: dict[str, Any], kind: type[Record]) -> bytes:
    """Moves the columns out of a dumped record; returns the file that holds them.

    Args:
        content: Of a record of that kind; what is empty afterwards goes as well.
        kind: Of record.
    """
    from safetensors.numpy import save

    arrays: dict[str, Array] = {}
    words: dict[str, list[str]] = {}
    for place in places(kind):
        found = _pop(content, place.path)
        if found is None:
            continue
        whole = "/".join(place.path)
        parts = (
            {f"{whole}/{k}": v for k, v in found.items()}
            if place.several
            else {whole: found}
        )
        for key, values in parts.items():
            if place.column is Column.CODE:
                words[key] = sorted(set(values))
                values = [words[key].index(value) for value in values]
            arrays[key] = _array(values, place.column)
    return save(arrays, {CODES: json.dumps(words, sort_keys=True)})


def put(content: dict[str, Any], kind: type[Record], file: Path) -> None:
    """Moves the columns in a file into the content of a record.

    What is missing, and whether lengths agree, the record itself says when validated.

    Raises:
        UserError: no safetensors file, or a column that is unknown, in the content
            already, of another rank or dtype, not finite, or with a code that has no
            word.
    """
    from safetensors import SafetensorError, safe_open

    known = list(places(kind))
    rows = 0
    try:
        budgets.check_header(file)
        with safe_open(file, framework="numpy") as stream:
            words = _words(stream.metadata() or {})
            for key in stream.keys():  # noqa: SIM118 - not a dict
                path, column = _find(known, key)
                part = stream.get_slice(key)
                dtype, shape = part.get_dtype(), part.get_shape()
                rows += math.prod(shape)
                budgets.check(rows, budgets.VALUES, "values")
                if dtype not in DTYPES[column] or len(shape) != 1:
                    raise ValueError(
                        f"column {key!r} is {dtype} of shape {shape}, not a vector of "
                        f"{' or '.join(DTYPES[column])}"
                    )
                _insert(
                    content, path, _values(key, stream.get_tensor(key), column, words)
                )
    except (SafetensorError, UserError, ValueError) as error:
        raise UserError(
            f"{file} does not hold the columns of a result: {error}"
        ) from None


def _pop(content: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Removes what lies at `path`, and what is empty afterwards; None if absent."""
    first, *rest = path
    if not rest or content.get(first) is None:
        return content.pop(first, None)
    found = _pop(content[first], tuple(rest))
    if not content[first]:
        del content[first]
    return found


def _array(values: list[Any], column: Column) -> Array:
    """The smallest dtype that holds all values."""
    if column is not Column.INTEGER:
        return np.array(values, np.uint8 if column is Column.CODE else np.float64)
    wide = np.array(values, np.int64)
    for dtype in INTEGERS:
        narrow = wide.astype(dtype)
        if (narrow == wide).all():
            break
    return narrow


def _words(metadata: Mapping[str, str]) -> dict[str, list[str]]:
    """The words of each coded column."""
    words = parse_json(metadata.get(CODES, "{}").encode(), "its metadata")
    lists = words.values() if isinstance(words, dict) else [words]
    for each in lists:
        if not isinstance(each, list) or not all(isinstance(w, str) for w in each):
            raise ValueError("its codes are no lists of words")
    return dict(words)


def _find(known: list[Place], key: str) -> tuple[tuple[str, ...], Column]:
    """Where the tensor of that name belongs, and what it must be."""
    for place in known:
        whole = "/".join(place.path)
        if not place.several and key == whole:
            return place.path, place.column
        if place.several and key.startswith(f"{whole}/"):
            return (*place.path, key.removeprefix(f"{whole}/")), place.column
    raise ValueError(f"no column is called {key!r}")


def _values(
    key: str, array: Array, column: Column, words: Mapping[str, list[str]]
) -> list[Any]:
    """The column as a list of numbers or words."""
    if column is Column.CODE:
        table = words.get(key, [])
        if len(array) and int(array.max()) >= len(table):
            raise ValueError(f"column {key!r} has a code without a word")
        return [table[code] for code in array.tolist()]
    if not np.isfinite(array).all():
        raise ValueError(f"column {key!r} is not finite")
    return list(array.tolist())


def _insert(content: dict[str, Any], path: tuple[str, ...], values: list[Any]) -> None:
    *parents, last = path
    for at, name in enumerate(parents):
        content = content.setdefault(name, {})
        if not isinstance(content, dict):
            raise ValueError(f"the record has no room for {'/'.join(path[: at + 1])!r}")
    if last in content:
        raise ValueError(f"the record holds {'/'.join(path)!r} itself")
    content[last] = values
