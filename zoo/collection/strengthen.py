"""Adding what further runs found to the worst case known of a published entry."""

from __future__ import annotations

import tempfile
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from zoo.collection import worst_case
from zoo.collection.entries import Published, load_classifier, read_entry
from zoo.collection.entry_verification import verify_entry
from zoo.collection.gathering import Further, Gathering, add_run, attack, of_the_same
from zoo.collection.index import ENTRIES, INDEX, EncoderRow, FileRecord, write_index
from zoo.collection.model_card import README, readme
from zoo.collection.publish import locked, sweep
from zoo.collection.sources import FolderSource
from zoo.collection.worst_case import MOST, WorstCase
from zoo.datasets.local import noted
from zoo.deltas import pack, unpack
from zoo.errors import UserError
from zoo.files import (
    copy_together,
    leftovers,
    sha256_file,
    write_tensors,
    write_text,
)
from zoo.records import write_record
from zoo.verification import check_claims, load_named_dataset
from zoo.writable import check_writable


def strengthen(
    root: Path,
    reference: str,
    runs: Sequence[Path],
    *,
    further: Further | None = None,
    data_dir: Path | None = None,
) -> WorstCase:
    """Adds to an entry's worst case what runs, or an attack now, find on its images.

    A run need not be of the same classifier: its adversarials are tried on the
    published one, and those count that fool it on an image that the entry calls robust.

    Args:
        root: Folder of the collection that holds the entry.
        reference: ENCODER/ENTRY.
        runs: Folders of evaluations under the entry's threat model; of an entry on a
            user's own images they say where these are.
        further: An attack to be made now.
        data_dir: Where the dataset lies.

    Returns:
        What is published now.

    Raises:
        UserError: no such entry, a run of other images or another threat model, an
            encoder beside it that cannot be read, or a folder that cannot be written.
        VerificationError: the entry or a run does not hold.
    """
    encoder, _, name = reference.partition("/")
    if not root.is_dir():
        raise UserError(f"no zoo at {root}: no such folder")
    check_writable(root, "name a copy of it that can be written with --to")
    if not (root / INDEX).is_file():
        raise UserError(f"{root} has no {INDEX}: publish the entry to it first")
    with locked(root):
        source = FolderSource(root)
        source.whole_index()  # which is written anew at the end
        entry = read_entry(source, source.find(encoder), name)
        for run in runs:
            of_the_same(run, entry.result)
        place = next(filter(None, map(noted, runs)), None)
        verify_entry(source, entry, data_dir=data_dir, images=place)
        data = load_named_dataset(entry.result, data_dir, place)
        found = Gathering(entry.result, load_classifier(source, entry), data)
        if entry.worst:
            before = worst_case.read_claims(source, entry.row, entry.worst, data)
            for at, battery in enumerate(entry.worst.batteries):
                own = before.attack_index == at
                found.add(battery, before.positions[own], before.images[own])
                tried = entry.worst.tried
                found.note(battery, tried[at] if tried else entry.result.robust.k)
        for run in runs:
            add_run(found, run, data_dir)
        if further is not None:
            attack(found, further)
        return _publish(source, entry, found)


def _publish(source: FolderSource, entry: Published, found: Gathering) -> WorstCase:
    """Writes both files, the encoder's page and the index, all checked before."""
    row, name = entry.row, entry.entry.name
    place = f"{ENTRIES}/{name}"
    with tempfile.TemporaryDirectory() as scratch:
        stage = Path(scratch)
        worst, made = _staged(stage / place, entry, found)
        others = [other for other in row.entries if other != name]
        entries = [read_entry(source, row, other) for other in others]
        entries.append(replace(entry, worst=worst))
        entries.sort(key=lambda each: each.reference)
        write_text(stage / README, readme(row.card, entries))
        paths = [*(f"{place}/{path.name}" for path in made), README]
        old = set(worst_case.files_of(row, name)) - set(paths)
        _write_index(source, row, stage, paths, old)
        pairs = [(stage / path, source.root / row.located(path)) for path in paths]
        pairs.append((stage / INDEX, source.root / INDEX))
        for _, path in pairs:
            sweep(path)
        _sweep_strays(source.root / row.located(place), row, place)
        copy_together(pairs)
        for stale in old:
            (source.root / row.located(stale)).unlink(missing_ok=True)
    return worst


def _staged(
    folder: Path, entry: Published, found: Gathering
) -> tuple[WorstCase, tuple[Path, Path]]:
    """The record and its adversarials in a folder, checked as `verify` does, and both
    files."""
    result, data = entry.result, found.data
    if len(found.batteries) > MOST:
        raise UserError(f"a worst case names at most {MOST} batteries")
    tensors = pack(found.classifier, found.claims(), data, result.threat)
    write_tensors(folder / "worst.safetensors", tensors, {"version": 1})
    deltas = _by_content(folder / "worst.safetensors")
    worst = WorstCase(
        encoder=entry.row.card.name,
        entry=entry.entry.name,
        batteries=found.batteries,
        tried=found.counts(),
        robust=worst_case.figure(result, len(found.positions)),
        fallen=sorted(result.examples.index[at] for at in found.positions),
        deltas=FileRecord.of(folder, deltas.name),
    )
    write_record(folder / "worst.json", worst)
    claims = unpack(tensors, data)
    worst_case.check_counts(worst, result, claims)
    check_claims(result, found.classifier, claims, data, "cpu")
    return worst, (deltas, _by_content(folder / "worst.json"))


def _sweep_strays(folder: Path, row: EncoderRow, place: str) -> None:
    """Deletes what killed calls left: files under the name of their content that the
    index does not have, and half-written ones."""
    named = {file.path for file in row.files}
    for path in folder.glob("worst-*"):
        digest = path.stem.rpartition("-")[2]
        ours = worst_case.is_one(path.name) and path.is_file() and not path.is_symlink()
        stray = ours and f"{place}/{path.name}" not in named
        if stray and sha256_file(path).startswith(digest):
            path.unlink()
    for path in folder.glob(".worst-*"):
        name = path.name[1:].rpartition(".")[0]
        if worst_case.is_one(name) and path in leftovers(folder / name):
            path.unlink()


def _by_content(path: Path) -> Path:
    """The file under a name that other content never has."""
    return path.rename(path.with_stem(f"{path.stem}-{sha256_file(path)[:8]}"))


def _write_index(
    source: FolderSource,
    row: EncoderRow,
    stage: Path,
    paths: Sequence[str],
    without: Container[str],
) -> None:
    """The index with these files of the encoder as they are in the stage."""
    files = {file.path: file for file in row.files if file.path not in without}
    files |= {path: FileRecord.of(stage, path) for path in paths}
    new = row.model_copy(update={"files": [files[path] for path in sorted(files)]})
    index = source.index
    rows = [new if each.card.name == row.card.name else each for each in index.encoders]
    serial = index.serial + (new != row)
    write_index(
        stage / INDEX, index.model_copy(update={"encoders": rows, "serial": serial})
    )
