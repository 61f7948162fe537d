"""Publishing: an encoder with its entries, to a folder or to a hub.

Entries are re-verified as their readers will verify them, from the packed files, before
anything leaves this machine. A published name never changes its content.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from zoo.collection.entries import read_entry
from zoo.collection.entry_packing import build_entry
from zoo.collection.entry_verification import verify_entry
from zoo.collection.index import (
    CARD,
    ENTRY,
    INDEX,
    check_name,
    write_index,
)
from zoo.collection.licences import forbids_sharing
from zoo.collection.merge import Merged, Receipt, merge
from zoo.collection.model_card import EVAL_RESULTS, README
from zoo.collection.public import public_card
from zoo.collection.publish_hub import check_address, publish_to_hub
from zoo.collection.references import weights_file
from zoo.collection.sources import FolderSource, Source
from zoo.collection.store import check_encoder, load_encoder_by_name, opened
from zoo.datasets.local import noted
from zoo.errors import UserError
from zoo.files import copy_together, leftovers, write_text
from zoo.paths import user_path
from zoo.records import Card, Result, read_record, write_record
from zoo.result_file import RESULT, read_result
from zoo.schema import as_text
from zoo.writable import check_writable

if TYPE_CHECKING:
    from zoo.encoder import Encoder

CONFIG = "config.json"
LOCK = ".publish.lock"
SCRATCH = "robrep-publish-"
"""Begins the name of the temporary folder of process N: robrep-publish-N-XXXX."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What to publish.

    `runs` are folders of evaluations (result.json), of which one may instead be the
    folder of an encoder (card.json and weights). Without one, the encoder is looked up
    by the reference that the evaluations name.
    """

    runs: Sequence[Path]
    source: Source | str | None = None
    """Where encoders are looked up."""
    entry: str | None = None
    """Name of the entry, if the usual one is taken; for one run only."""
    data_dir: Path | None = None


def publish(request: Publication, to: str) -> Receipt:
    """Packs, verifies and publishes.

    Args:
        request: What.
        to: A folder, or hf://ORG/REPO (one commit).

    Raises:
        UserError: nothing can be published there, something is missing, or the name is
            taken by other content.
        VerificationError: the evidence of an entry does not hold.
    """
    _check_target(to)
    _sweep_scratch()
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-") as scratch:
        folder = Path(scratch)
        card = prepare(request, folder)
        if to.startswith("hf://"):
            return publish_to_hub(folder, card.name, to)
        return _publish_to_folder(folder, card.name, user_path(to))


def _check_target(to: str) -> None:
    """What can be known before every claim is verified, which may take long."""
    if to.startswith("hf://"):
        check_address(to)
    elif "://" in to:
        raise UserError(
            f"cannot publish to '{to}': give a folder (and copy it to your server) or "
            "hf://ORG/REPO"
        )
    else:
        check_writable(user_path(to), "name another folder with --to")


def _sweep_scratch() -> None:
    """Deletes the temporary folders of publishers that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*-*"):
        found = re.fullmatch(rf"{SCRATCH}(\d+)-\w+", left.name)
        if found and left.is_dir() and not left.is_symlink() and _ended(int(found[1])):
            shutil.rmtree(left, ignore_errors=True)


def _ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False


def prepare(request: Publication, root: Path) -> Card:
    """Builds the encoder's folder with its entries under `root`, and verifies it there.

    Raises:
        UserError: something is missing.
        VerificationError: the evidence of an entry does not hold.
    """
    folder, card = _find_encoder(request)
    if forbids_sharing(card.licence):
        raise UserError(
            f"the licence of {card.name}, {card.licence}, forbids passing changed "
            "weights on: this encoder cannot be published"
        )
    place = root / card.name
    place.mkdir()
    shutil.copyfile(folder / card.weights, place / card.weights)
    write_record(place / CARD, card)
    encoder = check_encoder(card, place / card.weights)
    write_text(place / CONFIG, as_text(config(encoder)) + "\n")
    runs = [run for run in request.runs if (run / RESULT).is_file()]
    if request.entry:
        check_name(request.entry, "an entry")
    if request.entry and len(runs) != 1:
        raise UserError(f"--entry names one entry, but there are {len(runs)} results")
    results = {run: read_result(run) for run in runs}
    for run, result in results.items():
        _check_revision(run, result)
    images = {}
    for run in results:
        entry = build_entry(
            run, encoder, card, place, name=request.entry, data_dir=request.data_dir
        )
        images[entry.name] = noted(run)
    source = FolderSource(root)
    row = source.find(card.name)
    for name in row.entries:
        verify_entry(
            source,
            read_entry(source, row, name),
            data_dir=request.data_dir,
            images=images[name],
        )
    return card


def _check_revision(run: Path, result: Result) -> None:
    """Raises `UserError` for a result of sources that nobody else can get."""
    if result.provenance.changed:
        raise UserError(
            f"the result in {run} was made by robrep with changes that were not "
            "committed, so nobody else could make it again; commit them, and "
            "evaluate again into another --output"
        )


def config(encoder: Encoder) -> dict[str, object]:
    """config.json: how to rebuild the encoder, for programs that look there first."""
    return {"library": "robrep", **encoder.spec.model_dump(mode="json")}


def _find_encoder(request: Publication) -> tuple[Path, Card]:
    """The folder of the encoder and its card."""
    folders = [run for run in request.runs if (run / CARD).is_file()]
    for run in request.runs:
        if run not in folders and not (run / RESULT).is_file():
            raise UserError(f"{run} holds neither {RESULT} nor {CARD}")
    if len(folders) > 1:
        raise UserError(f"{folders[0]} and {folders[1]} are two encoders; publish one")
    if folders:
        return folders[0], public_card(read_record(folders[0] / CARD, Card))
    references = {read_result(run).model.reference for run in request.runs}
    if len(references) != 1:
        raise UserError(
            f"the results are of several models ({', '.join(sorted(references))}); "
            "publish those of one at a time"
        )
    return _by_reference(references.pop(), request)


def _by_reference(reference: str, request: Publication) -> tuple[Path, Card]:
    if reference.startswith("zoo:"):
        source = opened(request.source)
        name = reference.removeprefix("zoo:")
        load_encoder_by_name(name, source)  # all checks
        row = source.find(name)
        return source.fetch(row, row.card.weights).parent, row.card
    beside = weights_file(reference).parent
    if (beside / CARD).is_file():
        return beside, public_card(read_record(beside / CARD, Card))
    raise UserError(
        f"the results are of '{reference}', which has no card; give the encoder's "
        f"folder ({CARD} and its weights) as a further RUN"
    )


def _publish_to_folder(stage: Path, name: str, root: Path) -> Receipt:
    root.mkdir(parents=True, exist_ok=True)
    with locked(root):
        target = FolderSource(root)
        merged = merge(stage, name, target, name)
        write_index(stage / INDEX, merged.index)
        paths = sorted(merged.new_files, key=_visibility)
        pairs = [(stage / name / path, root / name / path) for path in paths]
        for (origin, path), file in zip(pairs, paths, strict=True):
            _check_free(origin, path, file, merged)
        pairs.append((stage / INDEX, root / INDEX))
        for _, path in pairs:
            sweep(path)
        copy_together(pairs)
    return merged.receipt(str(root))


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keeps other writers out of a collection.

    Raises:
        UserError: what is in the lock's place is none.
    """
    path = root / LOCK
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError(
            f"{path} is a link or no file, through which robrep writes nothing; "
            "move it away"
        )
    with FileLock(path):
        yield


def _visibility(path: str) -> int:
    """Order of appearance: first what is nothing by itself, then what shows it."""
    name = path.rpartition("/")[2]
    order = {ENTRY: 1, CARD: 2}
    return 3 if path in (README, EVAL_RESULTS) else order.get(name, 0)


def _check_free(origin: Path, path: Path, file: str, merged: Merged) -> None:
    """Only what an earlier call published may be replaced.

    Raises:
        UserError: another file is there, which nobody here wrote.
    """
    if file in merged.old_files or not (path.exists() or path.is_symlink()):
        return
    if not path.is_file() or path.read_bytes() != origin.read_bytes():
        raise UserError(
            f"{path} is there already and was not published by robrep; move it away, "
            "or publish to another folder"
        )


def sweep(path: Path) -> None:
    """Deletes what a killed publisher left of `path`; the lock is ours."""
    for left in leftovers(path):
        left.unlink()
