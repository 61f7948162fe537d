"""The index of a collection: what it holds, with the checksum of every file.

A collection is a folder, on a disk, a web server or a hub:

    index.json
    NAME/card.json, config.json, model.safetensors, README.md
    NAME/entries/ENTRY/entry.json, result.json, head.safetensors, deltas.safetensors

Imports no torch, so that listing is quick.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from zoo.collection.pieces import described, whole_name
from zoo.errors import RobrepError, UserError, nearest
from zoo.files import write_text
from zoo.plain_text import plain_line
from zoo.records import Card, Name, Record, Sha256, read_record, validated

T = TypeVar("T")

INDEX = "index.json"
CARD = "card.json"
ENTRIES = "entries"
ENTRY = "entry.json"


def _plain_path(path: str) -> str:
    """A relative path of plain names: no parent, no root, nothing to interpret."""
    plain = all(
        part not in ("", ".", "..") and part.isascii() and part.isprintable()
        for part in path.split("/")
    )
    if not plain or any(c in path for c in '\\:*?"<>|%#'):
        raise ValueError(f"'{path}' is not a plain relative path")
    return path


PlainPath = Annotated[str, Field(max_length=240), AfterValidator(_plain_path)]


_NAME: TypeAdapter[str] = TypeAdapter(Name)


def check_name(name: str, what: str) -> None:
    """Raises `UserError` unless `name` may name a folder of the zoo."""
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise UserError(
            f"'{name}' cannot name {what}: a name is made of a-z, 0-9, '.', '_' and "
            "'-', begins with a letter or digit, and has 96 characters at most"
        ) from None


def _once(what: str, names: Sequence[str]) -> set[str]:
    """The names; each costs whoever checks it, and counts where there are rankings."""
    counts = Counter(names)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"{what} '{min(twice)}' is listed twice")
    return set(counts)


class FileRecord(Record):
    """One file: where it lies, and how to know that it is the right one."""

    path: PlainPath
    """Relative to the folder of its encoder."""
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    """Bytes."""

    @classmethod
    def of(cls, folder: Path, path: str) -> Self:
        """Describes `folder / path`, which may lie in pieces."""
        sha256, size = described(folder / path)
        return cls(path=path, sha256=sha256, size=size)


class EncoderRow(Record):
    """One encoder of a collection."""

    card: Card
    folder: Literal["."] | Name
    """Beside the index; "." in a repository that holds one encoder alone."""
    files: list[FileRecord]
    entries: list[Name] = Field(default_factory=list)
    """Names of its leaderboard entries: folders under entries/."""

    def file(self, path: str) -> FileRecord:
        """The row of `path`; raises `UserError` if the index does not list it."""
        for row in self.files:
            if row.path == path:
                return row
        raise UserError(f"the index lists no file '{path}' for zoo:{self.card.name}")

    def check_entry(self, name: str) -> None:
        """Raises `UserError` with the nearest names unless `name` is an entry."""
        if name not in self.entries:
            raise UserError(
                f"zoo:{self.card.name} has no entry '{name}'; "
                f"{nearest(name, self.entries)}"
            )

    def located(self, path: str) -> str:
        """`path`, relative to the index."""
        return path if self.folder == "." else f"{self.folder}/{path}"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        known = _once("the file", [row.path for row in self.files])
        _once("the entry", self.entries)
        wanted = {CARD, self.card.weights}
        wanted |= {f"{ENTRIES}/{entry}/{ENTRY}" for entry in self.entries}
        if missing := sorted(wanted - known):
            raise ValueError(f"{self.card.name} lists no file {missing[0]}")
        return self


class Index(Record):
    """All encoders of a collection."""

    schema_version: Literal[1] = 1
    serial: Annotated[int, Field(ge=0)] = 0
    """Grows with each change: an older index in place of a newer one is noticed."""
    encoders: list[EncoderRow]

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        _once("the encoder", [row.card.name for row in self.encoders])
        _once("the folder", [row.folder for row in self.encoders])
        return self

    def names(self) -> list[str]:
        """Names of all encoders, sorted."""
        return sorted(row.card.name for row in self.encoders)

    def find(self, name: str, source: str = "the zoo") -> EncoderRow:
        """The row of encoder `name`; raises `UserError` with the nearest names."""
        for row in self.encoders:
            if row.card.name == name:
                return row
        raise UserError(
            f"{source} has no encoder '{name}'; {nearest(name, self.names())}"
        )


def write_index(path: Path, index: Index) -> None:
    """Writes an index with one line per encoder, atomically.

    It repeats the cards, so that one request tells what there is; people read the
    cards themselves.
    """
    rows = ",\n".join(row.model_dump_json() for row in index.encoders)
    numbers = f'"schema_version": {index.schema_version}, "serial": {index.serial}'
    head = f'{{{numbers}, "encoders": ['
    write_text(path, f"{head}\n{rows}\n]}}\n")


def only(
    rows: Sequence[T], what: str, wanted: Iterable[str], of: Callable[[T], str]
) -> list[T]:
    """Rows of which `of` is wanted; all if nothing is.

    Args:
        rows: Encoders or entries.
        what: Completes "nothing here is ...".
        wanted: Values of `of`, each of which must occur.
        of: The value of a row.

    Raises:
        UserError: a value that no row has.
    """
    chosen, known = set(wanted), {of(row) for row in rows}
    if unknown := chosen - known:
        name = min(unknown)
        raise UserError(f"nothing here is {what} '{name}'; {nearest(name, known)}")
    return [row for row in rows if not chosen or of(row) in chosen]


def describe_folder(folder: Path, place: str) -> EncoderRow:
    """The row of one encoder's folder, with fresh checksums of all its files.

    Args:
        folder: Holds card.json.
        place: Where it will lie relative to the index.
    """
    card = read_record(folder / CARD, Card)
    paths = sorted(
        {
            path.with_name(whole_name(path.name)).relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if _is_content(path)
        }
    )
    row = {
        "card": card,
        "folder": place,
        "files": [FileRecord.of(folder, path) for path in paths],
        "entries": sorted(
            path.parent.name for path in folder.glob(f"{ENTRIES}/*/{ENTRY}")
        ),
    }
    return validated(row, EncoderRow, str(folder))


def _is_content(path: Path) -> bool:
    """A plain file; what a link leads to is not of this folder."""
    scratch = path.name.startswith(".") or path.suffix in (".lock", ".part")
    return path.is_file() and not path.is_symlink() and not scratch


def scan(root: Path, left_out: dict[str, str] | None = None) -> Index:
    """The index of a folder that has none: every folder in it with a card.

    Args:
        root: The folder.
        left_out: Gets the names of folders that cannot be read, with the reasons;
            without it the first of them is an error.

    Raises:
        UserError: a broken card, or a card under another name than its folder.
    """
    rows = []
    for path in sorted(root.glob(f"*/{CARD}")):
        try:
            rows.append(_row_of_its_name(path.parent))
        except (RobrepError, OSError) as error:
            if left_out is None:
                raise
            leave_out(left_out, path.parent.name, error)
    return Index(encoders=rows)


def leave_out(left_out: dict[str, str], name: str, error: Exception) -> None:
    """Notes what cannot be read, and why, as text that every record can hold.

    A folder may be called anything, even what is no Unicode; of two names that look
    alike then, both reasons are kept.
    """
    name, reason = plain_line(name), plain_line(str(error))
    left_out[name] = "; ".join(filter(None, (left_out.get(name), reason)))


def _row_of_its_name(folder: Path) -> EncoderRow:
    row = describe_folder(folder, folder.name)
    if row.card.name != folder.name:
        raise UserError(f"{folder / CARD} is the card of '{row.card.name}'")
    return row
