"""A repository of results, as a collection: MODEL/REVISION/TASK.

    robrep-results.json             marks the folder
    MODEL/REVISION/card.json        of the encoder; REVISION begins its weights' SHA-256
    MODEL/REVISION/weights.json     says which zoo has the weights; or these themselves
    MODEL/REVISION/TASK/entry.json  an entry with its result, head and perturbations

Of a model with several revisions the collection holds the newest, by its results;
`RevisionSource` opens any of them. A model that cannot be read hides no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from zoo.collection.index import (
    CARD,
    ENTRIES,
    ENTRY,
    EncoderRow,
    FileRecord,
    Index,
    leave_out,
)
from zoo.collection.sources import Source, check_file
from zoo.collection.sources_embedded import EMBEDDED, EmbeddedSource
from zoo.collection.sources_hub import HubSource
from zoo.collection.sources_web import WebSource
from zoo.errors import RobrepError, UserError
from zoo.files import read_json
from zoo.moments import ahead, aware
from zoo.records import Card, Record, Size, read_record, validated
from zoo.result_writer import RESULT

MARKER = "robrep-results.json"
WEIGHTS_ELSEWHERE = "weights.json"
DIGITS = 12
"""Of the SHA-256 that name a revision."""


class Marker(Record):
    """What marks a repository of results."""

    schema_version: Literal[1] = 1


class WeightsElsewhere(Record):
    """Which zoo has the weights of a revision."""

    schema_version: Literal[1] = 1
    source: str
    """embedded, hf://ORG/REPO[@REVISION] or https://HOST/PATH."""
    size: Size
    """Bytes."""


def is_repository(root: Path) -> bool:
    """Whether a folder is a repository of results."""
    return (root / MARKER).is_file()


def check_repository(root: Path) -> None:
    """Raises `UserError` unless the folder is one, of a version that is known."""
    if not is_repository(root):
        raise UserError(
            f"{root} is no repository of results, for it has no {MARKER}; "
            "`robrep-zoo results init FOLDER` makes one"
        )
    read_record(root / MARKER, Marker)


def revision_of(card: Card) -> str:
    """How the folder of these weights is called."""
    return card.sha256[:DIGITS]


def folders(root: Path) -> list[Path]:
    """MODEL/REVISION with a card, sorted; none that a link leads to."""
    return sorted(
        path.parent
        for path in root.glob(f"*/*/{CARD}")
        if not any(
            part.name.startswith(".") or part.is_symlink()
            for part in (path.parent, path.parent.parent)
        )
    )


def public_source(uri: str) -> Source:
    """A zoo that everybody can open, by its name; raises `UserError` for another."""
    if uri == EMBEDDED:
        return EmbeddedSource()
    if uri.startswith("hf://"):
        return HubSource(uri)
    if uri.startswith("https://"):
        return WebSource(uri)
    raise UserError(
        f"'{uri}' is no place where everybody finds weights; known forms: {EMBEDDED}, "
        "hf://ORG/REPO[@REVISION], https://HOST/PATH"
    )


class RevisionSource(Source):
    """One model at one revision, as a collection of one encoder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder

    def _read_index(self) -> Index:
        for path in (self.folder, *self.folder.rglob("*")):
            if path.is_symlink():
                raise UserError(f"{path} is a link; files must lie there themselves")
        card = read_record(self.folder / CARD, Card)
        tasks = sorted(path.parent for path in self.folder.glob(f"*/{ENTRY}"))
        files = [FileRecord.of(self.folder, CARD), self._weights(card)]
        for task in tasks:
            for path in sorted(p for p in task.iterdir() if p.is_file()):
                found = FileRecord.of(task, path.name)
                here = f"{ENTRIES}/{task.name}/{path.name}"
                files.append(found.model_copy(update={"path": here}))
        row = {
            "card": card,
            "folder": card.name,
            "files": files,
            "entries": [task.name for task in tasks],
        }
        return Index(encoders=[validated(row, EncoderRow, str(self.folder))])

    def _weights(self, card: Card) -> FileRecord:
        if (self.folder / card.weights).is_file():
            return FileRecord.of(self.folder, card.weights)
        named = self._elsewhere()
        return FileRecord(path=card.weights, sha256=card.sha256, size=named.size)

    def _elsewhere(self) -> WeightsElsewhere:
        path = self.folder / WEIGHTS_ELSEWHERE
        if not path.is_file():
            raise UserError(
                f"{self.folder} has neither the weights nor a {WEIGHTS_ELSEWHERE} that "
                "says which zoo has them"
            )
        return read_record(path, WeightsElsewhere)

    def _fetch(self, row: EncoderRow, file: FileRecord) -> Path:
        here = self.folder / file.path.removeprefix(f"{ENTRIES}/")
        if file.path == row.card.weights and not here.is_file():
            return self._fetch_weights(row.card)
        check_file(here, file, again="get it again")
        return here

    def _fetch_weights(self, card: Card) -> Path:
        named = self._elsewhere().source
        there = public_source(named)
        row = there.find(card.name)
        if row.card.sha256 != card.sha256:
            raise UserError(
                f"zoo:{card.name} in {named} has other weights than {self.folder} is "
                "of: their SHA-256 differ"
            )
        return there.fetch(row, row.card.weights)


class ResultsSource(Source):
    """A repository of results: of each model the newest revision."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.root = root
        self._parts: dict[str, RevisionSource] = {}

    def _read_index(self) -> Index:
        check_repository(self.root)
        models: dict[str, list[Path]] = {}
        for folder in folders(self.root):
            models.setdefault(folder.parent.name, []).append(folder)
        rows = []
        for name, revisions in models.items():
            try:
                part = RevisionSource(_newest(revisions))
                rows.append(_row_of(part, name))
            except (RobrepError, OSError) as error:
                leave_out(self._left_out, name, error)
            else:
                self._parts[name] = part
        return Index(encoders=rows)

    def _fetch(self, row: EncoderRow, file: FileRecord) -> Path:
        return self._parts[row.card.name].fetch(row, file.path)


def _row_of(part: RevisionSource, name: str) -> EncoderRow:
    """What a revision holds, if it is of the model that its folder is called after."""
    row = part.index.encoders[0]
    if row.card.name != name:
        raise UserError(f"{part.folder / CARD} is the card of '{row.card.name}'")
    return row


def _newest(revisions: list[Path]) -> Path:
    """By their results; of several as new as each other the last."""
    if len(revisions) == 1:
        return revisions[0]
    return max(reversed(revisions), key=_dated)


def _dated(folder: Path) -> datetime:
    """When the newest result of a revision was made; a date to come is none."""
    return max(_dates(folder), default=datetime.min.replace(tzinfo=UTC))


def _dates(folder: Path) -> Iterator[datetime]:
    for path in folder.glob(f"*/{RESULT}"):
        try:
            text = read_json(path)["provenance"]["created"]
            found = aware(datetime.fromisoformat(text))
        except (RobrepError, OSError, KeyError, TypeError, ValueError):
            continue  # whoever reads it is told
        if not ahead(found):
            yield found
