"""People's own images by a list: a CSV file with the columns path, label and split.

    path,label,split
    photos/1.jpg,cat,train
    photos/2.jpg,dog,test

Paths are relative to the list. Labels are names, or numbers, and are sorted as such.
Without the column split, FILE@test20 keeps a fifth of each class for test. Classes,
splits, channels and sizes are those of an image folder (`zoo.datasets.folder`).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from zoo import budgets
from zoo.datasets.base import Dataset
from zoo.datasets.files import Files, from_files, share_of, some
from zoo.datasets.image_file import read_header
from zoo.datasets.names import LIST, Reading, recorded_name
from zoo.errors import UserError, nearest

SPLITS = ("train", "val", "test")
ROWS = budgets.VALUES
FORM = "expected a first line path,label or path,label,split, and a line per image"


@dataclass(frozen=True)
class Line:
    """One image."""

    path: Path
    label: str
    split: str | None


def read(
    file: Path, split: str, reading: Reading | None = None, *, called: str | None = None
) -> Dataset:
    """Reads the list and the headers of all its images.

    Args:
        file: The list.
        split: "train", "val" or "test"; val stands in for a missing test.
        reading: As `zoo.datasets.folder.read`.
        called: Name for records, by default the last part of `file`.

    Raises:
        UserError: no such file, a line that is none, a file that is no image, fewer
            than two classes, a class that train does not have, sizes that differ.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; {nearest(split, SPLITS)}")
    lines, name = _lines(file), f"{LIST}{file}"
    share = reading is not None and reading.share is not None
    there = {line.split for line in lines}
    if share and there != {None}:
        raise UserError(f"{file} has a column split; leave --test-share out")
    if not share and None in there:
        raise UserError(
            f"{file} does not say which images are for test; add a column split, "
            f"or write {LIST}PATH@test20 (--test-share 20% of robrep-eval)"
        )
    chosen = split
    if split == "test" and not share and "test" not in there and "val" in there:
        chosen = "val"
    own = [line for line in lines if share or line.split == chosen]
    if not own:
        raise UserError(f"{file} has no images of split {split}")
    classes = _classes(file, lines, own)
    number = {label: at for at, label in enumerate(classes)}
    headers = {line.path: read_header(line.path) for line in lines}
    files = Files(
        [line.path for line in own],
        [number[line.label] for line in own],
        [headers[line.path] for line in own],
        classes,
    )
    notes = []
    if chosen != split:
        notes.append("The list has no test images; val was read in its place.")
    if share:
        assert reading is not None
        files = share_of(files, split, reading, name)
    data = from_files(
        files,
        name=name,
        split=chosen,
        channels=1 if all(header.grey for header in headers.values()) else 3,
        reading=reading,
        notes=notes,
    )
    data.name = recorded_name(data.name, called)
    return data


def _lines(file: Path) -> list[Line]:
    """All lines, checked; each image once."""
    try:
        text = budgets.read_bytes(file, budgets.TEXT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text in UTF-8: {error}") from None
    rows = csv.DictReader(text.splitlines())
    fields = [] if rows.fieldnames is None else list(rows.fieldnames)
    lacking = [name for name in ("path", "label") if name not in fields]
    if lacking:
        raise UserError(
            f"{file} has no column {some(lacking)} (columns: {some(fields)}); {FORM}"
        )
    found: dict[Path, Line] = {}
    for number, row in enumerate(rows, start=2):
        with budgets.naming(file):
            budgets.check(len(found), ROWS, "lines")
        line = _line(row, f"line {number} of {file}", file.parent)
        if line.path in found:
            raise UserError(f"line {number} of {file} names {row['path']} again")
        found[line.path] = line
    if not found:
        raise UserError(f"{file} names no images; {FORM}")
    return list(found.values())


def _line(row: dict[str, str | None], where: str, folder: Path) -> Line:
    path, label = (row["path"] or "").strip(), (row["label"] or "").strip()
    if not path or not label:
        raise UserError(f"{where} has no {'label' if path else 'path'}; {FORM}")
    split = row.get("split")
    if split is not None and split not in SPLITS:
        raise UserError(f"{where}: unknown split '{split}'; {nearest(split, SPLITS)}")
    place = folder / path
    try:
        there = place.is_file()
    except (ValueError, OSError) as error:
        raise UserError(f"{where}: {path[:80]!r} is no path here: {error}") from None
    if not there:
        raise UserError(f"{where}: no file {place}; paths are relative to the list")
    return Line(place, label, split)


def _classes(file: Path, lines: list[Line], own: list[Line]) -> list[str]:
    """Those of train, or of the split's own where there is no train."""
    train = [line for line in lines if line.split == "train"] or own
    names = {line.label for line in train}
    numbers = all(name.isascii() and name.isdigit() for name in names)
    classes = sorted(names, key=int) if numbers else sorted(names)
    if len(classes) < 2:
        raise UserError(f"{file} has {len(classes)} class; {some(classes)}; {FORM}")
    unknown = sorted({line.label for line in own} - names)
    if unknown:
        raise UserError(
            f"{file} has images of class {some(map(repr, unknown))}, of which train "
            f"has none ({nearest(unknown[0], classes)})"
        )
    return classes
