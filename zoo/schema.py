"""What all records share: their base class, the types of fields, reading, writing.

Numbers are numbers, accuracies lie in [0, 1] with their count and interval, and what
is absent is null, never 0. A later version of robrep reads older records or says
that it cannot. Imports no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails

from zoo.errors import UserError
from zoo.files import read_json, write_text

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=96)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]
"""Of a file beside the record: never a path that leads elsewhere."""
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(gt=0, le=2**31)]
Count = Annotated[int, Field(ge=0, le=2**31)]
Version = Annotated[int, Field(ge=1, le=9999)]
Label = Annotated[int, Field(ge=0, le=2**20)]


WIDTH = 140
"""Characters of a line of JSON: what fits on one line stays on one."""


class Column(StrEnum):
    """Marks a field with one value per example: it lies in a file of columns.

    `Annotated[list[float], Column.REAL]`, or a dict of such lists.
    """

    INTEGER = "integer"
    REAL = "real"
    CODE = "code"
    """One of a few words."""


def _harden(schema: Any) -> None:
    """Has every list checked up to its first error, for a file may hold millions; and
    numbers be numbers, neither text nor true and false."""
    if isinstance(schema, dict):
        if schema.get("type") in ("list", "tuple", "set"):
            schema["fail_fast"] = True
        if schema.get("type") in ("int", "float"):
            schema["strict"] = True
        for part in schema.values():
            _harden(part)
    elif isinstance(schema, list):
        for part in schema:
            _harden(part)


class Record(BaseModel):
    """Base of all records: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema = handler(source)
        _harden(schema)
        return schema


class Proportion(Record):
    """k of n with the exact 95% interval (Clopper & Pearson 1934)."""

    value: Share
    k: Count
    n: Size
    low: Share
    high: Share

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.low <= self.value == self.k / self.n <= self.high:
            raise ValueError(
                f"{self.value} is not {self.k} of {self.n} in [{self.low}, {self.high}]"
            )
        return self

    @classmethod
    def of(cls, k: int, n: int) -> Self:
        """Counts to a share with its interval; n must be positive."""
        from scipy.stats import beta

        if not 0 <= k <= n or n == 0:
            raise ValueError(
                f"a proportion needs 0 <= k <= n and n > 0, not {k} of {n}"
            )
        low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
        high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
        return cls(value=k / n, k=k, n=n, low=low, high=high)

    def __float__(self) -> float:
        return self.value

    def __lt__(self, other: object) -> bool:
        """Compares the shares: a Proportion with another, or with a number."""
        if not isinstance(other, (Proportion, int, float)):
            return NotImplemented
        return self.value < float(other)

    def __gt__(self, other: object) -> bool:
        if not isinstance(other, (Proportion, int, float)):
            return NotImplemented
        return self.value > float(other)

    def __le__(self, other: object) -> bool:
        if not isinstance(other, (Proportion, int, float)):
            return NotImplemented
        return self.value <= float(other)

    def __ge__(self, other: object) -> bool:
        if not isinstance(other, (Proportion, int, float)):
            return NotImplemented
        return self.value >= float(other)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"


SHORT = 60
"""Characters of a wrong value in a message."""
R = TypeVar("R", bound=Record)


def read_record(path: Path, kind: type[R]) -> R:
    """Reads and validates a record.

    Raises:
        UserError: missing, not JSON, of another schema version, or a wrong field,
            which is named.
    """
    return validated(read_json(path), kind, str(path))


def validated(content: object, kind: type[R], name: str) -> R:
    """The record that `content` is; raises `UserError` as `read_record` does.

    Args:
        content: Parsed JSON.
        kind: Of record.
        name: What to call it in the message.
    """
    if "schema_version" in kind.model_fields:
        check_version(
            content, get_args(kind.model_fields["schema_version"].annotation), name
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
        reason = ": ".join(filter(None, (where, first["msg"])))
        raise UserError(
            f"{name} is not a valid {what}: {reason}{_found(first)}"
        ) from None


def _found(error: ErrorDetails) -> str:
    """The value that is wrong, where it is short and the message does not say it."""
    value = error.get("input")
    plain = value is None or isinstance(value, str | int | float)
    if not plain or error["type"] in ("missing", "value_error", "extra_forbidden"):
        return ""
    text = repr(value)
    return f", not {text if len(text) <= SHORT else text[:SHORT] + '...'}"


def check_version(content: object, known: Sequence[int], name: str) -> int:
    """The schema version of parsed JSON; raises `UserError` unless it is known."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version not in known:
        text = " and ".join(map(str, known))
        raise UserError(
            f"{name} has schema version {version}; this robrep reads version {text}"
        )
    return version


def write_record(path: Path, record: Record) -> None:
    """Writes a record as JSON for people, atomically."""
    write_text(path, as_text(record.model_dump(mode="json")) + "\n")


def as_text(value: Any, indent: str = "", before: int = 0) -> str:
    """Indented JSON in which whatever fits on one line stays on one.

    Long lists of numbers or words fill their lines, and so do objects of them.

    Args:
        value: JSON; NaN is refused, as JSON has none.
        indent: Of the line on which it begins.
        before: Characters that stand before it on that line.
    """
    flat = json.dumps(value, allow_nan=False)
    fits = len(indent) + before + len(flat) <= WIDTH
    if fits or not value or not isinstance(value, dict | list):
        return flat
    deeper = f"{indent}  "
    items = value.values() if isinstance(value, dict) else value
    nested = any(isinstance(item, dict | list) and item for item in items)
    if isinstance(value, dict):
        keys = [f"{json.dumps(key)}: " for key in value]
        pairs = zip(keys, value.values(), strict=True)
        lines = [key + as_text(item, deeper, len(key)) for key, item in pairs]
    else:
        lines = [as_text(item, deeper) for item in value]
    if not nested:
        lines = _filled(lines, WIDTH - len(deeper))
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    body = ",\n".join(deeper + line for line in lines)
    return f"{opening}\n{body}\n{indent}{closing}"


def _filled(items: Sequence[str], width: int) -> list[str]:
    """As many of the items on each line as it holds."""
    lines = [items[0]]
    for item in items[1:]:
        if len(lines[-1]) + len(item) + 3 <= width:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines
