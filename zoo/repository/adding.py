"""Adding runs to a repository of results, after every claim was verified."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from zoo.collection.entries import read_entry
from zoo.collection.index import CARD, ENTRIES
from zoo.collection.publish import SCRATCH, Publication, prepare
from zoo.collection.sources import FolderSource
from zoo.collection.sources_results import (
    WEIGHTS_ELSEWHERE,
    RevisionSource,
    WeightsElsewhere,
    check_repository,
    public_source,
    revision_of,
)
from zoo.errors import RobrepError, UserError
from zoo.files import copy_together
from zoo.locks import in_use
from zoo.records import Card, read_record, write_record
from zoo.writable import check_writable

LARGEST = 50_000_000
"""Bytes of weights that a repository holds itself; hosts refuse files of 100 MB."""
USUAL = "embedded"
"""Looked into for the weights, if nobody says where they are."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What was laid out."""

    folder: Path
    """MODEL/REVISION."""
    added: tuple[str, ...]
    """Tasks."""
    known: tuple[str, ...]
    """Tasks that were there already, with the same result."""


def add(request: Publication, root: Path, weights: str | None = None) -> Added:
    """Packs, verifies, and lays out as MODEL/REVISION/TASK.

    Args:
        request: Runs, and the folder of their encoder if need be.
        root: The repository.
        weights: Which zoo has the weights: embedded, hf://ORG/REPO or https://HOST/PATH.
            By default they are copied, unless robrep has them.

    Raises:
        UserError: no repository or one that cannot be written, something is missing,
            or a task has another result.
        VerificationError: the evidence of a result does not hold.
    """
    check_repository(root)
    check_writable(root, "name another repository with --to")
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-") as scratch:
        card = prepare(request, Path(scratch))
        with in_use(root, wait=True):
            return _lay_out(card, Path(scratch), root, weights)


def _lay_out(card: Card, scratch: Path, root: Path, weights: str | None) -> Added:
    """Copies what the repository lacks; no other process does so meanwhile."""
    staged = FolderSource(scratch)
    row = staged.find(card.name)
    folder = root / card.name / revision_of(card)
    known = _known(folder, card, staged)
    added = [name for name in row.entries if name not in known]
    pairs = [
        (scratch / Path(row.located(file.path)), folder / Path(*parts[1:]))
        for file in row.files
        if (parts := Path(file.path).parts)[0] == ENTRIES and parts[1] in added
    ]
    if not folder.is_dir():
        pairs += _weights(card, scratch, folder, weights)
        pairs.append((scratch / card.name / CARD, folder / CARD))
    copy_together(pairs)
    return Added(folder=folder, added=tuple(added), known=tuple(known))


def _known(folder: Path, card: Card, staged: FolderSource) -> list[str]:
    """Tasks of the stage that the repository has; all of them the same.

    Raises:
        UserError: another card or result is there.
    """
    if not folder.is_dir():
        return []
    if read_record(folder / CARD, Card) != card:
        raise UserError(
            f"{folder} has another card for the same weights, and what is published "
            "never changes"
        )
    here, row = RevisionSource(folder), staged.find(card.name)
    ours = here.find(card.name)
    known = [name for name in row.entries if name in ours.entries]
    for name in known:
        before = read_entry(here, ours, name).result
        if before != read_entry(staged, row, name).result:
            raise UserError(
                f"{folder / name} holds another result, and what is published never "
                "changes"
            )
    return known


def _weights(
    card: Card, scratch: Path, folder: Path, weights: str | None
) -> list[tuple[Path, Path]]:
    """What stands beside the card: the weights, or where they are."""
    file = scratch / card.name / card.weights
    where = weights or (USUAL if _has(USUAL, card) else None)
    if where is None:
        if file.stat().st_size > LARGEST:
            raise UserError(
                f"the weights of {card.name} take {file.stat().st_size // 10**6} MB, "
                "too much for a repository; publish them (robrep-zoo publish), and "
                "say where with --weights hf://ORG/REPO"
            )
        return [(file, folder / card.weights)]
    if weights and not _has(weights, card, strict=True):
        raise UserError(f"{weights} holds zoo:{card.name} with other weights")
    note = scratch / WEIGHTS_ELSEWHERE
    write_record(note, WeightsElsewhere(source=where, size=file.stat().st_size))
    return [(note, folder / WEIGHTS_ELSEWHERE)]


def _has(uri: str, card: Card, *, strict: bool = False) -> bool:
    """Whether a zoo has these very weights; `strict`: raises if it lacks the name."""
    try:
        return public_source(uri).find(card.name).card.sha256 == card.sha256
    except RobrepError:
        if strict:
            raise
        return False


def start(root: Path) -> list[Path]:
    """Makes a repository: its mark, a README, and the workflows that check changes.

    What is there already stays.

    Returns:
        The files that were written.

    Raises:
        UserError: the folder is a file, or cannot be written.
    """
    templates = Path(__file__).parent / "template"
    names = sorted(p for p in templates.rglob("*") if p.is_file())
    pairs = [(path, root / _place(path.relative_to(templates))) for path in names]
    pairs = [(origin, path) for origin, path in pairs if not path.exists()]
    try:
        for origin, path in pairs:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, path)
    except OSError as error:
        raise UserError(f"cannot write to {root}: {error.strerror}") from None
    return [path for _, path in pairs]


def _place(path: Path) -> Path:
    """In the package, folders begin with no dot: builders leave such out."""
    return Path(*(re.sub("^dot-", ".", part) for part in path.parts))
