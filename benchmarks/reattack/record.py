"""What `robrep-zoo verify --attack` found of each entry, a line of JSON for each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from zoo.collection.audit import Audit

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

    @property
    def share(self) -> float:
        """Of the images attacked, those that fell; 0 if there were none."""
        return len(self.fallen) / self.attacked if self.attacked else 0.0


def read(path: Path = FOUND) -> dict[str, Line]:
    """By entry; nothing if the file is not there."""
    lines = (Line(**json.loads(text)) for text in _whole(path).splitlines())
    return {line.entry: line for line in lines}


def add(line: Line, path: Path = FOUND) -> None:
    """Appends a line, in place of one that a killed process left half-written."""
    before = _whole(path)
    with path.open("a") as file:
        file.truncate(len(before.encode()))
        file.write(json.dumps(asdict(line)) + "\n")


def _whole(path: Path) -> str:
    """The lines that were written to their end."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1]
