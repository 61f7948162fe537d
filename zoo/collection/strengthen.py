"""Adding what further runs found to the worst case known of a published entry."""

from __future__ import annotations

import tempfile
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from zoo.batteries import shown
from zoo.classifier import Classifier
from zoo.collection import worst_case
from zoo.collection.audit import Again
from zoo.collection.entries import Published, load_classifier, read_entry
from zoo.collection.entry_verification import verify_entry
from zoo.collection.index import ENTRIES, INDEX, EncoderRow, FileRecord, write_index
from zoo.collection.model_card import README, readme
from zoo.collection.publish import locked, sweep
from zoo.collection.reattack import draw
from zoo.collection.sources import FolderSource
from zoo.collection.worst_case import MOST, WorstCase
from zoo.datasets.base import Dataset
from zoo.datasets.local import noted
from zoo.deltas import pack, unpack
from zoo.errors import UserError
from zoo.evidence import check_adversarials
from zoo.evidence_file import Claims
from zoo.evidence_file import read_claims as claims_of_run
from zoo.files import copy_together, sha256_file, write_tensors, write_text
from zoo.records import Result, Verdict, write_record
from zoo.recount import agree, check_figures
from zoo.result_file import read_result
from zoo.two_phases import STRONGER
from zoo.verification import BLOCK, check_claims, load_named_dataset
from zoo.writable import check_writable


@dataclass
class _Gathering:
    """Adversarials of images that a result calls robust, one of each."""

    result: Result
    classifier: Classifier
    data: Dataset
    batteries: list[str] = field(default_factory=list)
    tried: dict[str, int] = field(default_factory=dict)
    """Images that the result calls robust, of those that each battery was tried on."""
    positions: list[int] = field(default_factory=list)
    found_by: list[int] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)

    def add(self, battery: str, rows: Tensor, images: Tensor) -> None:
        """Keeps those that fool the classifier on an image that stood so far.

        Args:
            battery: What found them.
            rows: (n,), of the result's examples.
            images: (n, C, H, W).
        """
        if battery not in self.batteries:
            self.batteries.append(battery)
        verdict = self.result.examples.verdict
        for start in range(0, len(rows), BLOCK):
            part, proposed = rows[start : start + BLOCK], images[start : start + BLOCK]
            check = check_adversarials(
                self.classifier,
                self.data.images(part),
                proposed,
                self.data.labels[part],
                self.result.threat,
            )
            for at in check.fooled.nonzero().flatten().tolist():
                row = int(part[at])
                if verdict[row] is Verdict.ROBUST and row not in self.positions:
                    self.positions.append(row)
                    self.found_by.append(self.batteries.index(battery))
                    self.images.append(proposed[at])

    def note(self, battery: str, count: int) -> None:
        """That it was tried on so many of the images that the result calls robust."""
        self.tried[battery] = max(count, self.tried.get(battery, 0))

    def claims(self) -> Claims:
        """All of them."""
        none = torch.zeros(0, *self.data.shape)
        return Claims(
            positions=torch.tensor(self.positions, dtype=torch.int64),
            attack_index=torch.tensor(self.found_by, dtype=torch.int64),
            images=torch.stack(self.images) if self.images else none,
        )


@dataclass(frozen=True, kw_only=True)
class Further:
    """An attack on images that the entry calls robust, beside what runs found."""

    again: Again
    """How many images are drawn, by which seed, and what attacks them."""
    known: Container[int] | None = None
    """Positions in the split that fell to just this before: of those drawn only these
    are attacked once more, to have their adversarials. None: all of them are."""
    device: str = "cpu"


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
    if not (root / INDEX).is_file():
        raise UserError(f"{root} has no {INDEX}: publish the entry to it first")
    check_writable(root, "name a copy of it that can be written with --to")
    with locked(root):
        source = FolderSource(root)
        source.whole_index()  # which is written anew at the end
        entry = read_entry(source, source.find(encoder), name)
        place = next(filter(None, map(noted, runs)), None)
        verify_entry(source, entry, data_dir=data_dir, images=place)
        data = load_named_dataset(entry.result, data_dir, place)
        found = _Gathering(entry.result, load_classifier(source, entry), data)
        if entry.worst:
            before = worst_case.read_claims(source, entry.row, entry.worst, data)
            for at, battery in enumerate(entry.worst.batteries):
                own = before.attack_index == at
                found.add(battery, before.positions[own], before.images[own])
                tried = entry.worst.tried
                found.note(battery, tried[at] if tried else entry.result.robust.k)
        for run in runs:
            _add_run(found, run, data_dir)
        if further is not None:
            _attack(found, further)
        return _publish(source, entry, found)


def _add_run(found: _Gathering, run: Path, data_dir: Path | None) -> None:
    """The adversarials of a run, by the images that they are of."""
    result, other = found.result, read_result(run)
    for what, theirs, ours in (
        ("dataset", other.dataset.name, result.dataset.name),
        ("split", other.dataset.split, result.dataset.split),
        ("threat model", other.threat, result.threat),
    ):
        if theirs != ours:
            raise UserError(
                f"the run in {run} is of another {what} than the entry: {theirs}, not "
                f"{ours}"
            )
    data = load_named_dataset(other, data_dir, noted(run))
    _check_run(run, other, data)
    rows = {index: row for row, index in enumerate(result.examples.index)}
    index = other.examples.index
    seen = zip(index, other.examples.verdict, strict=True)
    attacked = {at for at, said in seen if said is not Verdict.MISCLASSIFIED}
    verdict = result.examples.verdict
    robust = {at for at, row in rows.items() if verdict[row] is Verdict.ROBUST}
    if not attacked & robust:
        raise UserError(
            f"the run in {run} attacked none of the images that the entry calls robust"
        )
    claims = claims_of_run(run, other, data)
    at = [rows.get(index[place], -1) for place in claims.positions.tolist()]
    own = torch.tensor(at, dtype=torch.int64)
    battery = shown(other)  # a name that says which attacks these were, or "custom"
    found.add(battery, own[own >= 0], claims.images[own >= 0])
    found.note(battery, len(attacked & robust))


def _check_run(run: Path, result: Result, data: Dataset) -> None:
    """That its record is one, and of attacks; its adversarials are checked one by one.

    Raises:
        UserError: nothing was attacked.
        VerificationError: the record contradicts itself or the images.
    """
    if not result.attacks:
        raise UserError(f"the run in {run} attacked nothing (battery {result.battery})")
    agree("images of the run", result.dataset.n, len(result.examples.index))
    agree("their shape", tuple(result.dataset.shape), data.shape)
    check_figures(result)


def _attack(found: _Gathering, further: Further) -> None:
    """By the members of `standard`, on images drawn from those called robust."""
    again, result = further.again, found.result
    drawn = draw(result, again.count, again.seed)
    known = further.known
    index = result.examples.index
    rows = [row for row in drawn if known is None or index[row] in known]
    if rows:
        attacked = again.attack(
            found.classifier.to(further.device),
            found.data.subset(rows),
            result.threat,
            seed=again.seed,
            device=further.device,
            on_progress=lambda: None,
        )
        found.classifier.to("cpu")
        fell = torch.tensor(rows)[attacked.rows]
        found.add(STRONGER, fell, attacked.adversarials)
    found.note(STRONGER, len(drawn))


def _publish(source: FolderSource, entry: Published, found: _Gathering) -> WorstCase:
    """Writes both files, the encoder's page and the index, all checked before."""
    result, row, data = entry.result, entry.row, found.data
    place = f"{ENTRIES}/{entry.entry.name}"
    if len(found.batteries) > MOST:
        raise UserError(f"a worst case names at most {MOST} batteries")
    with tempfile.TemporaryDirectory() as scratch:
        stage = Path(scratch)
        tensors = pack(found.classifier, found.claims(), data, result.threat)
        write_tensors(stage / place / "worst.safetensors", tensors, {"version": 1})
        deltas = _by_content(stage / place / "worst.safetensors")
        worst = WorstCase(
            encoder=row.card.name,
            entry=entry.entry.name,
            batteries=found.batteries,
            tried=[found.tried[battery] for battery in found.batteries],
            robust=worst_case.figure(result, len(found.positions)),
            fallen=sorted(result.examples.index[at] for at in found.positions),
            deltas=FileRecord.of(stage / place, deltas.name),
        )
        write_record(stage / place / "worst.json", worst)
        record = _by_content(stage / place / "worst.json")
        claims = unpack(tensors, data)
        worst_case.check_counts(worst, result, claims)
        check_claims(result, found.classifier, claims, data, "cpu")
        entries = [
            read_entry(source, row, name)
            for name in row.entries
            if name != entry.entry.name
        ]
        entries.append(replace(entry, worst=worst))
        entries.sort(key=lambda each: each.reference)
        write_text(stage / README, readme(row.card, entries))
        paths = [f"{place}/{deltas.name}", f"{place}/{record.name}", README]
        old = set(worst_case.files_of(row, entry.entry.name)) - set(paths)
        _write_index(source, row, stage, paths, old)
        pairs = [(stage / path, source.root / row.located(path)) for path in paths]
        pairs.append((stage / INDEX, source.root / INDEX))
        for _, path in pairs:
            sweep(path)
        copy_together(pairs)
        for name in old:
            (source.root / row.located(name)).unlink(missing_ok=True)
    return worst


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
