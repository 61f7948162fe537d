"""Joining a staged encoder with a collection: what is new, known, or taken."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.collection.entries import Published, read_entry
from zoo.collection.index import ENTRIES, EncoderRow, FileRecord, Index, describe_folder
from zoo.collection.model_card import EVAL_RESULTS, README, eval_results, readme
from zoo.collection.sources import FolderSource, Source
from zoo.errors import UserError
from zoo.files import write_text
from zoo.records import Card


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was published."""

    encoder: str
    where: str
    new_encoder: bool
    added: tuple[str, ...]
    """New entries."""
    known: tuple[str, ...]
    """Entries that were there already, with the same content."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A collection as it will be."""

    index: Index
    row: EncoderRow
    new_files: tuple[str, ...]
    """Relative to the encoder's folder; all lie in the stage."""
    old_files: frozenset[str]
    """Of the encoder as it was published before."""
    new_encoder: bool
    added: tuple[str, ...]
    known: tuple[str, ...]

    def receipt(self, where: str) -> Receipt:
        """What to tell people."""
        return Receipt(
            encoder=self.row.card.name,
            where=where,
            new_encoder=self.new_encoder,
            added=self.added,
            known=self.known,
        )


def merge(
    stage: Path, name: str, target: Source, place: str, shown: str | None = None
) -> Merged:
    """Joins what is staged with what is published, and writes the generated pages.

    Args:
        stage: Holds the encoder's folder `name`.
        name: Of the encoder.
        target: The collection as it is.
        place: Folder of the encoder in the collection.
        shown: Where readers of the pages will find it, if that is known.

    Raises:
        UserError: a name is taken by other content, or what is published already cannot
            be read.
    """
    new = describe_folder(stage / name, name)
    others = [r for r in target.whole_index().encoders if r.card.name != name]
    old = next((r for r in target.index.encoders if r.card.name == name), None)
    if old is not None and old.card != new.card:
        raise UserError(
            f"{target.uri} holds '{name}' with other content, and a published name "
            f"never changes; publish it under another name, such as {name}.v2"
        )
    known = tuple(sorted(set(new.entries) & set(old.entries))) if old else ()
    staged = FolderSource(stage)
    for entry in known:
        _check_same_entry(target, old, staged, new, entry)
        shutil.rmtree(stage / name / ENTRIES / entry)
    added = tuple(entry for entry in new.entries if entry not in known)
    published = [read_entry(staged, new, entry) for entry in added]
    if old is not None:
        published += [read_entry(target, old, entry) for entry in old.entries]
    published.sort(key=lambda entry: entry.reference)
    _write_pages(stage / name, new.card, published, shown)
    row = _joined(describe_folder(stage / name, place), old)
    return Merged(
        index=Index(
            serial=target.index.serial + (row != old),
            encoders=sorted([*others, row], key=lambda r: r.card.name),
        ),
        row=row,
        new_files=tuple(f.path for f in row.files if (stage / name / f.path).is_file()),
        old_files=frozenset(file.path for file in old.files) if old else frozenset(),
        new_encoder=old is None,
        added=added,
        known=known,
    )


def _check_same_entry(
    target: Source,
    old: EncoderRow | None,
    staged: Source,
    new: EncoderRow,
    entry: str,
) -> None:
    assert old is not None
    if read_entry(target, old, entry).result != read_entry(staged, new, entry).result:
        raise UserError(
            f"{target.uri} holds another entry '{entry}', and a published name never "
            "changes; choose another with --entry"
        )


def _write_pages(
    folder: Path, card: Card, entries: Sequence[Published], shown: str | None
) -> None:
    write_text(folder / README, readme(card, entries, shown))
    rows = eval_results(entries, shown)
    if rows is not None:
        write_text(folder / EVAL_RESULTS, rows)


def _joined(new: EncoderRow, old: EncoderRow | None) -> EncoderRow:
    """Files and entries of both; a generated page is taken from the newer."""
    if old is None:
        return new
    files: dict[str, FileRecord] = {file.path: file for file in old.files}
    files |= {file.path: file for file in new.files}
    return EncoderRow(
        card=new.card,
        folder=new.folder,
        files=[files[path] for path in sorted(files)],
        entries=sorted({*new.entries, *old.entries}),
    )
