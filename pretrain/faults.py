"""What settings refuse, and what is wrong with them in one sentence for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import no_info_before_validator_function

from zoo.errors import nearest


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault in one sentence, with the key, the value and a near key."""
    faults = error.errors()
    # An unknown key explains the others best: it is usually a mistyped known one.
    first = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    path = [str(p) for p in first["loc"] if not _is_branch(str(p))]
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        return f"unknown key '{where}'; {nearest(path[-1], known)}"
    message = first["msg"].removeprefix("Value error, ")
    if not where:
        return message
    if first["type"] == "missing":
        return f"'{where}' is missing"
    return f"'{where}': {message[0].lower()}{message[1:]}, not {first['input']!r}"


def refuse_booleans(schema: Any) -> None:
    """Has true and false be no numbers, which to Python they are."""
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float"):
            number = dict(schema)
            schema.clear()
            schema |= no_info_before_validator_function(_no_boolean, number)
            return
        if schema.get("function", {}) == {"type": "no-info", "function": _no_boolean}:
            return
        for part in schema.values():
            refuse_booleans(part)
    elif isinstance(schema, list):
        for part in schema:
            refuse_booleans(part)


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


def _is_branch(part: str) -> bool:
    """Names that pydantic adds to a location for the branch of a union."""
    return (
        part.endswith("Settings")
        or part.startswith(("literal[", "dict["))
        or (part in ("str", "constrained-str"))
    )


def _fields_at(model: type[BaseModel], path: Iterable[str]) -> list[str]:
    """Names of the fields of the model that lies at `path`."""
    for part in path:
        inner = _model_of(model, part)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model behind a field, also inside a union; None for plain values."""
    if name not in model.model_fields:
        return None
    annotation = model.model_fields[name].annotation
    for option in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None
