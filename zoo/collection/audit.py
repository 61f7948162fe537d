"""Checking what a collection publishes: each encoder's files, each entry's claims."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.claims import UNPROVEN, Basis, names
from zoo.collection.index import EncoderRow
from zoo.collection.sources import Source
from zoo.errors import MissingDatasetError, RobrepError


@dataclass(frozen=True, kw_only=True)
class Item:
    """An encoder, or one of its entries."""

    row: EncoderRow
    entry: str | None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.row.card.name, self.entry)))


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What checking one item came to."""

    item: str
    holds: bool
    findings: list[tuple[str, str]] = field(default_factory=list)
    """What was checked, and what was found."""
    reason: str | None = None
    """Why it does not hold, or could not be checked."""
    unchecked: bool = False
    """The images that it speaks of are not here."""
    stated: str | None = None
    """Of an entry that holds: the fields that rest on its publisher's word alone."""
    unproven: str | None = None
    """Of an entry that holds: what no check without an attack can tell."""
    seconds: float

    def __str__(self) -> str:
        if self.unchecked:
            return f"not checked  {self.item}: {self.reason}"
        if not self.holds:
            return f"FAILS  {self.item}: {self.reason}"
        checks = "\n".join(f"       {check}: {found}" for check, found in self.findings)
        return f"holds  {self.item} ({self.seconds:.1f} s)\n{checks}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**self.__dict__, "findings": dict(self.findings)}


def plan(source: Source, name: str | None) -> list[Item]:
    """What to check: an encoder with its entries, one entry, or everything.

    Args:
        source: The collection.
        name: ENCODER, ENCODER/ENTRY, or None for all.

    Raises:
        UserError: no such encoder or entry.
    """
    if name is None:
        rows = sorted(source.index.encoders, key=lambda row: row.card.name)
    else:
        encoder, _, entry = name.partition("/")
        rows = [source.find(encoder)]
        if entry:
            rows[0].check_entry(entry)
            return [Item(row=rows[0], entry=entry)]
    return [
        Item(row=row, entry=entry) for row in rows for entry in (None, *row.entries)
    ]


def audit(
    source: Source, item: Item, *, data_dir: Path | None, device: str = "cpu"
) -> Audit:
    """Checks one item; a failure is reported, not raised."""
    start = time.monotonic()
    try:
        findings = (
            _audit_encoder(source, item.row)
            if item.entry is None
            else _audit_entry(source, item.row, item.entry, data_dir, device)
        )
    except Exception as error:  # one hostile item must not stop the rest
        return Audit(
            item=str(item),
            holds=False,
            reason=_reason(error),
            unchecked=isinstance(error, MissingDatasetError),
            seconds=time.monotonic() - start,
        )
    of_entry = item.entry is not None
    return Audit(
        item=str(item),
        holds=True,
        findings=findings,
        stated=names(Basis.STATED) if of_entry else None,
        unproven=UNPROVEN if of_entry else None,
        seconds=time.monotonic() - start,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, RobrepError):
        return str(error)
    text = " ".join(str(error).split())[:200]
    return f"cannot be checked ({type(error).__name__}: {text})"


def _audit_encoder(source: Source, row: EncoderRow) -> list[tuple[str, str]]:
    """All files by hash; weights, card and stored features agree."""
    from zoo.collection.store import load_encoder_by_name

    for file in row.files:
        source.fetch(row, file.path)
    encoder = load_encoder_by_name(row.card.name, source)
    return [
        ("files", f"{len(row.files)} have the stated SHA-256"),
        ("encoder", f"{encoder.spec.arch}, {encoder.dim} features, as stored"),
    ]


def _audit_entry(
    source: Source, row: EncoderRow, entry: str, data_dir: Path | None, device: str
) -> list[tuple[str, str]]:
    from zoo.collection.entries import read_entry, verify_entry

    found = verify_entry(
        source, read_entry(source, row, entry), data_dir=data_dir, device=device
    )
    return [(finding.check, finding.detail) for finding in found]
