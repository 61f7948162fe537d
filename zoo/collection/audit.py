"""Checking what a collection publishes: each encoder's files, each entry's claims."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.claims import UNPROVEN, Basis, names
from zoo.collection.index import EncoderRow
from zoo.collection.sources import Source
from zoo.errors import MissingDatasetError, RobrepError
from zoo.plain_text import plain_line
from zoo.processes import ALONE, AbsentError, Company

if TYPE_CHECKING:
    from zoo.collection.reattack import Attack, Sampled


@dataclass(frozen=True, kw_only=True)
class Item:
    """An encoder, or one of its entries."""

    row: EncoderRow
    entry: str | None

    def __str__(self) -> str:
        return "/".join(filter(None, (self.row.card.name, self.entry)))


@dataclass(frozen=True, kw_only=True)
class Again:
    """A re-attack, after everything else holds; see `zoo.collection.reattack`."""

    count: int
    """Images of each entry."""
    seed: int
    attack: Attack
    strict: bool = False
    """An entry fails if one image falls; else if more do than a second run of its
    battery explains."""

    def fails(self, found: Sampled) -> bool:
        """Whether what was found speaks against the entry."""
        return found.refuted or (self.strict and bool(found.fallen))


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
    reattacked: Sampled | None = None
    """What a re-attack found, if one was asked for."""
    seconds: float

    def __str__(self) -> str:
        """A line, and of what holds one for each check: texts of others, such as the
        name of a battery, never make lines of their own."""
        if self.unchecked:
            return plain_line(f"not checked  {self.item}: {self.reason}")
        if not self.holds:
            return plain_line(f"FAILS  {self.item}: {self.reason}")
        found = list(self.findings)
        if self.reattacked:
            found.append(("re-attack", str(self.reattacked)))
        lines = [f"holds  {self.item} ({self.seconds:.1f} s)"]
        lines += [f"       {check}: {text}" for check, text in found]
        return "\n".join(map(plain_line, lines))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "findings": dict(self.findings)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Audit:
        """What `as_json` gave, also as JSON text read again."""
        from zoo.collection.reattack import Sampled

        told = content["reattacked"]
        return cls(
            **{
                **content,
                "findings": list(content["findings"].items()),
                "reattacked": None if told is None else Sampled.from_json(told),
            }
        )


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


def unreadable(source: Source) -> list[Audit]:
    """A verdict on each encoder that cannot be read: nothing of it is checked."""
    return [
        Audit(item=name, holds=False, reason=reason, seconds=0.0)
        for name, reason in source.left_out.items()
    ]


def audit(
    source: Source,
    item: Item,
    *,
    data_dir: Path | None,
    device: str = "cpu",
    again: Again | None = None,
    company: Company = ALONE,
) -> Audit:
    """Checks one item; a failure is reported, not raised.

    Args:
        source: The collection.
        item: What to check.
        data_dir: Where the datasets lie.
        device: Where to run classifiers.
        again: Also attack entries that hold.
        company: Processes that share the forward passes, each of which calls this; the
            verdict of the leading one is that of all.

    Raises:
        AbsentError: another process ended or hangs.
    """
    start = time.monotonic()
    sampled: Sampled | None = None
    try:
        findings = company.agreed(
            lambda: _findings(source, item, data_dir, device, company)
        )
        if item.entry is not None and again is not None:
            sampled = _attack_again(source, item, again, data_dir, device, company)
    except AbsentError:
        raise
    except Exception as error:  # one hostile item must not stop the rest
        return Audit(
            item=str(item),
            holds=False,
            reason=_reason(error),
            unchecked=isinstance(error, MissingDatasetError),
            seconds=time.monotonic() - start,
        )
    failed = bool(again and sampled and again.fails(sampled))
    of_entry = item.entry is not None
    return Audit(
        item=str(item),
        holds=not failed,
        findings=findings,
        reason=f"re-attack: {sampled}" if failed else None,
        stated=names(Basis.STATED) if of_entry else None,
        unproven=UNPROVEN if of_entry else None,
        reattacked=sampled,
        seconds=time.monotonic() - start,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, RobrepError):
        return str(error)
    text = " ".join(str(error).split())[:200]
    return f"cannot be checked ({type(error).__name__}: {text})"


def _attack_again(
    source: Source,
    item: Item,
    again: Again,
    data_dir: Path | None,
    device: str,
    company: Company,
) -> Sampled:
    from zoo.collection.entries import read_entry
    from zoo.collection.reattack import reattack

    assert item.entry is not None
    return reattack(
        source,
        read_entry(source, item.row, item.entry),
        again.count,
        seed=again.seed,
        attack=again.attack,
        data_dir=data_dir,
        device=device,
        on_progress=company.pulse,
    )


def _findings(
    source: Source, item: Item, data_dir: Path | None, device: str, company: Company
) -> list[tuple[str, str]]:
    if item.entry is None:
        return _audit_encoder(source, item.row)
    return _audit_entry(source, item.row, item.entry, data_dir, device, company)


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
    source: Source,
    row: EncoderRow,
    entry: str,
    data_dir: Path | None,
    device: str,
    company: Company,
) -> list[tuple[str, str]]:
    from zoo.collection.entries import read_entry
    from zoo.collection.entry_verification import verify_entry

    found = verify_entry(
        source,
        read_entry(source, row, entry),
        data_dir=data_dir,
        device=device,
        company=company,
    )
    return [(finding.check, finding.detail) for finding in found]
