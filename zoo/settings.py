"""Frozen settings as plain JSON values, and where two sets of them differ.

What was made with some settings is taken up again only where none of them differs.
Floats are compared exactly: JSON keeps them by their shortest exact form.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LAYOUT = ("batch_size", "device")
"""How work is laid out, never what is asked for."""
ABSENT = "(not noted)"
"""In place of a value that one side does not have."""


def plain(settings: Any) -> Any:
    """As JSON gives it back: tuples are lists, keys are strings."""
    return json.loads(json.dumps(settings, allow_nan=False))


def dump(settings: DataclassInstance) -> dict[str, Any]:
    """Every field of a frozen dataclass by name, but for `LAYOUT`."""
    found: dict[str, Any] = plain(asdict(settings))
    return {key: value for key, value in found.items() if key not in LAYOUT}


def differing(
    old: Mapping[str, Any], new: Mapping[str, Any], *, without: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Both values of each key that differs, by dotted key, sorted.

    Args:
        old: Nested mappings of JSON values.
        new: The same; a key that one side lacks differs unless the other has None.
        without: Last parts of keys that are not compared.
    """
    flat_old, flat_new = dict(_flatten(old)), dict(_flatten(new))
    pairs = {
        key: (flat_old.get(key, ABSENT), flat_new.get(key, ABSENT))
        for key in sorted(flat_old.keys() | flat_new.keys())
    }
    return {
        key: pair
        for key, pair in pairs.items()
        if key.rpartition(".")[2] not in without
        and flat_old.get(key) != flat_new.get(key)
    }


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
