"""The leaderboard as data: one row per entry, ranked among comparable ones.

It reads records and nothing else. Results are comparable that share dataset, split,
threat model, protocol (with its labels) and battery; how ranks are found is told in
`zoo.board.ranking`. Custom batteries, none at all, selected images and evaluations to
which a health check objected are shown, and not ranked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from zoo.batteries import CUSTOM, NONE
from zoo.board.ranking import Keys, Place, Sample, places
from zoo.collection.entries import Entry, Published, read_entry
from zoo.collection.index import EncoderRow, leave_out, only
from zoo.collection.sources import Source
from zoo.errors import UserError, VerificationError
from zoo.judgement import MARKED, Judgement, doubts, judge
from zoo.plain_text import plain_line
from zoo.records import Card, Proportion, Record
from zoo.task_version import shown, version_of
from zoo.threat import ThreatModel

Key = tuple[str, ...]


class Row(Record):
    """One entry of the leaderboard."""

    reference: str
    """ENCODER/ENTRY."""
    rank: int = 1
    """1 plus the number of rows shown to be more robust, among those with the same
    dataset, split, threat model, protocol and battery; 0: not ranked (`ranked`)."""
    last: int = 1
    """The rank if every row that is not shown to differ stood before it."""
    dataset: str
    split: str
    threat: ThreatModel
    battery: str
    """Its name, if that says which attacks these were; else "custom"."""
    images: str = ""
    """"selected images" if they may have been chosen for the figure."""
    engine: str
    protocol: str
    version: str = ""
    """Of the task, if it is not the first: other versions are other tasks."""
    clean: Proportion
    robust: Proportion
    worst: Proportion | None = None
    """Under everything that was tried, if more than its battery was; ranks are by
    `robust`."""
    worst_by: list[str] = Field(default_factory=list)
    """What was tried beyond the battery."""
    undecided: int
    created: datetime
    parameters: int
    card: Card
    doubts: list[str] | None = None
    """What the health checks of the evaluation objected to; null if none ran."""
    judgement: Judgement = Judgement.UNCHECKED
    """What they make of it."""
    verified: bool | None = None
    """Whether every claim was just recomputed; null if it was not tried."""

    @property
    def ranked(self) -> bool:
        """Whether its figure can be compared: named attacks (at least one), images not
        selected, and no health check objected."""
        comparable = self.battery not in (CUSTOM, NONE) and not self.images
        return comparable and self.judgement not in MARKED

    @property
    def group(self) -> str:
        """What it is ranked among, for people."""
        split = "" if self.split == "test" else f"/{self.split}"
        words = [f"{self.dataset}{split}", str(self.threat), self.protocol]
        rest = [self.battery, self.images, self.version]
        return ", ".join(filter(None, [*words, *rest]))

    @property
    def method(self) -> str:
        """How the encoder was made; labels in pretraining are another task."""
        training = self.card.training
        return f"{training.method}{', with labels' if training.labels else ''}"

    @property
    def place(self) -> str:
        """The ranks that the tests leave open: "2", or "3 to 5"; "-": not ranked."""
        if not self.ranked:
            return "-"
        return (
            str(self.rank) if self.rank == self.last else f"{self.rank} to {self.last}"
        )


class Board(Record):
    """A leaderboard."""

    schema_version: Literal[2] = 2
    source: str
    rows: list[Row]
    left_out: dict[str, str] = Field(default_factory=dict)
    """Entries and encoders that cannot be read or did not stand up to verification, and
    why."""


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
    kept = only(kept, "measured on", datasets, lambda c: c.row.dataset)
    wanted = {protocol.lower() for protocol in protocols}
    kept = only(kept, "of protocol", wanted, lambda c: c.entry.protocol)
    if verify:
        left_out |= _failures(source, kept, data_dir)
    kept = [each for each in kept if each.row.reference not in left_out]
    rows = [
        row for group in _groups(kept).values() for row in _rank(group, verified=verify)
    ]
    return Board(source=source.uri, rows=rows, left_out=left_out)


@dataclass(frozen=True)
class _Candidate:
    """An entry without the bulk of its record, not ranked yet."""

    row: Row
    entry: Entry
    encoder: EncoderRow
    sample: Sample


def _read(source: Source) -> tuple[list[_Candidate], dict[str, str]]:
    """All entries that can be read, and what is wrong with each of the others."""
    found: list[_Candidate] = []
    broken = dict(source.left_out)
    known: dict[bytes, Keys] = {}
    for row in source.index.encoders:
        for name in row.entries:
            try:
                entry = read_entry(source, row, name)
            except (UserError, VerificationError, OSError) as error:
                leave_out(broken, f"{row.card.name}/{name}", error)
                continue
            sample = Sample.of(entry.result)
            keys = known.setdefault(sample.images, sample.keys)
            sample = replace(sample, keys=keys)
            found.append(_Candidate(_row(entry), entry.entry, row, sample))
    return found, broken


def _failures(
    source: Source, entries: Sequence[_Candidate], data_dir: Path | None
) -> dict[str, str]:
    from zoo.collection.audit import Item, audit

    found = {}
    for each in entries:
        item = Item(row=each.encoder, entry=each.entry.name)
        verdict = audit(source, item, data_dir=data_dir)
        if not verdict.holds:
            found[each.row.reference] = plain_line(str(verdict.reason))
    return found


def _groups(entries: Sequence[_Candidate]) -> dict[Key, list[_Candidate]]:
    """Comparable entries, most robust first; SLF before the other protocols."""
    groups: dict[Key, list[_Candidate]] = {}
    ordered = sorted(entries, key=lambda c: (-c.row.robust.value, c.row.reference))
    for each in ordered:
        row = each.row
        ball = str(row.threat)  # as people see it: no ranking of one beside theirs
        probe = ("" if row.protocol == "SLF" else row.protocol,)
        rest = (row.battery, row.images, row.version)
        key = (row.dataset, row.split, ball, *probe, *rest)
        groups.setdefault(key, []).append(each)

    def place(item: tuple[Key, list[_Candidate]]) -> tuple[object, ...]:
        (dataset, split, _, *rest), group = item
        threat = group[0].row.threat
        return dataset, split, threat.norm, threat.eps, rest

    return dict(sorted(groups.items(), key=place))


def _rank(group: Sequence[_Candidate], *, verified: bool) -> list[Row]:
    ranked = [each for each in group if each.row.ranked]
    group = [*ranked, *(each for each in group if not each.row.ranked)]
    found = places([each.sample for each in ranked]) if ranked else []
    found += [Place(0, 0)] * (len(group) - len(ranked))
    rows = [
        each.row.model_copy(
            update={
                "rank": place.rank,
                "last": place.last,
                "verified": verified or None,
            }
        )
        for each, place in zip(group, found, strict=True)
    ]
    return sorted(rows, key=lambda r: (not r.ranked, r.rank, -r.robust.value))


def _row(entry: Published) -> Row:
    result, worst = entry.result, entry.worst
    return Row(
        reference=entry.reference,
        dataset=result.dataset.name,
        split=result.dataset.split,
        threat=result.threat,
        battery=entry.battery,
        images=entry.images,
        engine=result.engine,
        protocol=entry.protocol,
        version=shown(version_of(result)),
        clean=result.clean,
        robust=result.robust,
        worst=worst.robust if worst else None,
        worst_by=worst.by if worst else [],
        undecided=result.undecided,
        created=result.provenance.created,
        parameters=result.model.parameters,
        card=entry.row.card,
        doubts=doubts(result.measurements.health),
        judgement=judge(result.measurements.health),
    )
