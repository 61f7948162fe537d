"""The leaderboard as data: one row per entry, ranked among comparable ones.

It reads records and nothing else. Results are comparable that share dataset, split,
threat model, protocol (with its labels) and battery; how ties are found is told in
`zoo.board.ranking`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from zoo.board.ranking import places
from zoo.collection.entries import Published, read_entry
from zoo.collection.index import only
from zoo.collection.sources import Source
from zoo.errors import UserError, VerificationError
from zoo.measurements import Status
from zoo.records import Card, Proportion, Record, Result
from zoo.threat import ThreatModel

Key = tuple[str, ...]


class Row(Record):
    """One entry of the leaderboard."""

    reference: str
    """ENCODER/ENTRY."""
    rank: int
    """Among rows with the same dataset, split, threat model, protocol and battery."""
    ties: list[str]
    """References of rows that are not shown to differ."""
    dataset: str
    split: str
    threat: ThreatModel
    battery: str
    engine: str
    protocol: str
    clean: Proportion
    robust: Proportion
    undecided: int
    created: datetime
    parameters: int
    card: Card
    doubts: list[str] | None = None
    """What the health checks of the evaluation objected to; null if none ran."""
    verified: bool | None = None
    """Whether every claim was just recomputed; null if it was not tried."""

    @property
    def group(self) -> str:
        """What it is ranked among, for people."""
        split = "" if self.split == "test" else f"/{self.split}"
        return f"{self.dataset}{split}, {self.threat}, {self.protocol}, {self.battery}"

    @property
    def method(self) -> str:
        """How the encoder was made; labels in pretraining are another task."""
        training = self.card.training
        return f"{training.method}{', with labels' if training.labels else ''}"

    @property
    def place(self) -> str:
        """Rank, marked where it is shared: "2=" ."""
        return f"{self.rank}{'=' if self.ties else ''}"


class Board(Record):
    """A leaderboard."""

    schema_version: Literal[1] = 1
    source: str
    rows: list[Row]
    left_out: dict[str, str] = Field(default_factory=dict)
    """Entries that did not stand up to verification, and why."""


def build(
    source: Source,
    *,
    datasets: Iterable[str] = (),
    protocols: Iterable[str] = (),
    verify: bool = False,
    data_dir: Path | None = None,
) -> Board:
    """Reads all entries of a collection and ranks them.

    Args:
        source: The collection.
        datasets: Keep these only; all if empty.
        protocols: The same for protocols, in any case of letters.
        verify: Recompute every entry first, and leave out what does not hold.
        data_dir: Where the datasets lie, for verification.

    Raises:
        UserError: no entry on such a dataset or of such a protocol.
        RobrepError: the collection cannot be reached.
    """
    kept, left_out = _read(source)
    kept = only(kept, "measured on", datasets, lambda e: e.result.dataset.name)
    wanted = {protocol.lower() for protocol in protocols}
    kept = only(kept, "of protocol", wanted, lambda e: e.entry.protocol)
    if verify:
        left_out |= _failures(source, kept, data_dir)
    kept = [entry for entry in kept if entry.reference not in left_out]
    rows = [
        row for group in _groups(kept).values() for row in _rank(group, verified=verify)
    ]
    return Board(source=source.uri, rows=rows, left_out=left_out)


def _read(source: Source) -> tuple[list[Published], dict[str, str]]:
    """All entries that can be read, and what is wrong with each of the others."""
    entries: list[Published] = []
    broken: dict[str, str] = {}
    for row in source.index.encoders:
        for name in row.entries:
            try:
                entries.append(read_entry(source, row, name))
            except (UserError, VerificationError) as error:
                broken[f"{row.card.name}/{name}"] = str(error)
    return entries, broken


def _failures(
    source: Source, entries: Sequence[Published], data_dir: Path | None
) -> dict[str, str]:
    from zoo.collection.audit import Item, audit

    found = {}
    for entry in entries:
        item = Item(row=entry.row, entry=entry.entry.name)
        verdict = audit(source, item, data_dir=data_dir)
        if not verdict.holds:
            found[entry.reference] = str(verdict.reason)
    return found


def _groups(entries: Sequence[Published]) -> dict[Key, list[Published]]:
    """Comparable entries, most robust first; SLF before the other protocols."""
    groups: dict[Key, list[Published]] = {}
    ordered = sorted(entries, key=lambda e: (-e.result.robust.value, e.reference))
    for entry in ordered:
        result = entry.result
        data = result.dataset
        threat = result.threat
        ball = (threat.norm, f"{threat.eps:.9f}")
        probe = ("" if entry.protocol == "SLF" else entry.protocol,)
        key = (data.name, data.split, *ball, *probe, result.battery)
        groups.setdefault(key, []).append(entry)
    return dict(sorted(groups.items()))


def _rank(group: Sequence[Published], *, verified: bool) -> list[Row]:
    found = places([entry.result for entry in group])
    rows = [
        _row(
            entry,
            rank=place.rank,
            ties=[group[at].reference for at in place.ties],
            verified=verified or None,
        )
        for entry, place in zip(group, found, strict=True)
    ]
    return sorted(rows, key=lambda row: (row.rank, -row.robust.value))


def _row(entry: Published, *, rank: int, ties: list[str], verified: bool | None) -> Row:
    result = entry.result
    return Row(
        reference=entry.reference,
        rank=rank,
        ties=ties,
        dataset=result.dataset.name,
        split=result.dataset.split,
        threat=result.threat,
        battery=result.battery,
        engine=result.engine,
        protocol=entry.protocol,
        clean=result.clean,
        robust=result.robust,
        undecided=result.undecided,
        created=result.provenance.created,
        parameters=result.model.parameters,
        card=entry.row.card,
        doubts=doubts(result),
        verified=verified,
    )


def doubts(result: Result) -> list[str] | None:
    """Summaries of failed health checks, causes first; None if none ran."""
    report = result.measurements.health
    if report is None:
        return None
    return [flag.summary for flag in report.flags if flag.status is Status.FAIL]
