"""What `robrep-zoo verify --attack` found of each entry, a line of JSON for each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from zoo.collection.audit import Audit
from zoo.errors import UserError

FOUND = Path(__file__).parent / "found.jsonl"
"""Of the published entries; each line has the seed of the choice and the attacks."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One entry."""

    entry: str
    """ENCODER/ENTRY."""
    holds: bool
    strong: bool
    """Whether its own battery holds the attacks of AutoAttack's standard."""
    seed: int
    robust: int
    """Images that the entry calls robust ..."""
    attacked: int
    """... of which those were drawn."""
    fallen: dict[str, str]
    """Position of each that fell, and the attack that fooled it."""

    @classmethod
    def of(cls, audit: Audit) -> Line:
        """Of an entry that was attacked again.

        Raises:
            ValueError: it was not; says why.
        """
        found = audit.reattacked
        if found is None:
            raise ValueError(f"{audit.item} was not attacked: {audit.reason}")
        return cls(
            entry=audit.item,
            holds=audit.holds,
            strong=found.strong,
            seed=found.seed,
            robust=found.robust,
            attacked=found.attacked,
            fallen={str(at): name for at, name in found.fallen.items()},
        )

    def enough(self, count: int) -> bool:
        """Whether so many images were attacked, or all that are robust."""
        return self.attacked >= min(count, self.robust)

    @property
    def share(self) -> float:
        """Of the images attacked, those that fell; 0 if there were none."""
        return len(self.fallen) / self.attacked if self.attacked else 0.0


def read(path: Path = FOUND) -> dict[str, Line]:
    """By entry, the last line of each; nothing if the file is not there.

    Raises:
        UserError: a file that cannot be read, or a line that is none.
    """
    found = {}
    for number, text in enumerate(_whole(path).splitlines(), start=1):
        try:
            line = TypeAdapter(Line).validate_json(text, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UserError(
                f"{path}, line {number} is no line of this record: {reason}; mend the "
                "file, or name another with --record"
            ) from None
        found[line.entry] = line
    return found


def add(line: Line, path: Path = FOUND) -> None:
    """Appends a line, in place of one that a killed process left half-written."""
    before = _whole(path)
    end = b"\n" if before and not before.endswith(b"\n") else b""
    with path.open("ab") as file:
        file.truncate(len(before))
        file.write(end + json.dumps(asdict(line)).encode() + b"\n")


def _whole(path: Path) -> bytes:
    """The lines that were written to their end."""
    try:
        content = path.read_bytes() if path.exists() else b""
        content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the record {path}: {error}") from None
    whole = content[: content.rfind(b"\n") + 1]
    try:
        json.loads(content[len(whole) :])
    except json.JSONDecodeError:
        return whole
    return content  # an editor's last line has no end
