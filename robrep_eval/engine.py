"""Runs a battery over a dataset: chunk by chunk, resumable, every claim re-checked.

Each (chunk, attack) is one file, written atomically, and attacks of robrep's own
engine journal what they are in every few seconds, so a killed run loses no more than
that. Chunks are shared out among processes by `robrep_eval.shards`. Adversarials stay
in the files until the evidence is written: memory does not grow with the examples.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from robrep_eval.attacks.base import Attack, Context
from robrep_eval.attacks.checks import check_classifier
from robrep_eval.attacks.pool import Journal, State
from robrep_eval.battery import Battery
from robrep_eval.shards import Shards
from zoo.classifier import Classifier, predict
from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.evidence import check_adversarials
from zoo.files import read_tensors, write_tensors
from zoo.records import Examples, Outcome, Verdict
from zoo.threat import ThreatModel
from zoo.verdicts import verdicts

OUTCOMES = list(Outcome)
"""Order in which outcomes are numbered in chunk files."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a battery is run; the first two are part of the result's identity."""

    seed: int = 0
    chunk_size: int = 256
    """The reference's verdicts depend on it: its random draws are per batch."""
    batch_size: int = 256
    device: str = "cpu"


@dataclass(frozen=True)
class Progress:
    """Where a run stands."""

    done: int
    """Examples whose chunk is finished."""
    total: int
    robust: int
    """Of the examples begun, those still correct and not fooled."""
    begun: int
    attack: str
    share: float
    """Of the attack on the current chunk."""


@dataclass(kw_only=True)
class ChunkAttack:
    """What one attack came to on one chunk."""

    outcomes: list[Outcome]
    rows: Tensor
    """Rows of the chunk with a counted adversarial, int64 (k,)."""
    images: Tensor
    """Those adversarials (k, C, H, W)."""
    seconds: float
    notes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Run:
    """Everything a battery found."""

    examples: Examples
    seconds: dict[str, float]
    """By attack name."""
    notes: dict[str, list[str]]
    positions: Tensor
    """Row of each counted adversarial in `examples`, int64 (k,)."""
    attack_index: Tensor
    """Which attack of the battery found it, int64 (k,)."""
    files: list[Path]
    """Where the adversarials lie, in this order."""
    warnings: list[str] = field(default_factory=list)
    """What the checks of the classifier say about all of it."""

    def parts(self) -> Iterator[Tensor]:
        """The counted adversarials, float32 (k, C, H, W), a file at a time."""
        for path in self.files:
            yield _read(path).images

    @property
    def images(self) -> Tensor:
        """All of them at once."""
        parts = list(self.parts())
        return torch.cat(parts) if parts else torch.zeros(0)


def run_battery(
    classifier: Classifier,
    data: Dataset,
    threat: ThreatModel,
    battery: Battery,
    *,
    settings: Settings,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    shards: Shards | None = None,
) -> Run:
    """Attacks every example; files in `folder` from an earlier call are used.

    Args:
        classifier: On `settings.device`.
        data: The examples.
        threat: What is allowed.
        battery: Attacks in order.
        settings: Seed and sizes.
        folder: For chunk files; the caller makes sure that they belong to this run.
        on_progress: Called after each attack on each chunk, and in between if the
            attack tells how far it is.
        shards: Processes that share the work. All but the leader return an empty run.

    Raises:
        UserError: the classifier cannot be evaluated by this battery.
    """
    shards = shards or Shards()
    warnings = check_classifier(classifier, data, battery, settings.device)
    starts = range(0, len(data), settings.chunk_size)
    tally = _Tally(on_progress, len(data))
    for number in shards.chunks(len(starts)):
        chunk = _chunk(classifier, data, threat, settings, folder, starts[number])
        tally.add(chunk.run(battery, tally.reporter(len(chunk.data))))
    tally.close()
    shards.gather()
    merged = (
        _chunk(classifier, data, threat, settings, folder, start).run(battery)
        for start in (starts if shards.leader else ())
    )
    run = _merge(merged, battery)
    run.warnings = warnings
    return run


class _Tally:
    """Where this process stands, over the chunks that it was given."""

    def __init__(self, on_progress: Callable[[Progress], None], total: int) -> None:
        self.on_progress = on_progress
        self.total = total
        self.done = 0
        self.robust = 0

    def reporter(self, count: int) -> Callable[[str, float, int], None]:
        """For a chunk of `count` examples."""

        def report(attack: str, share: float, alive: int) -> None:
            begun, robust = self.done + count, self.robust + alive
            self.on_progress(
                Progress(self.done, self.total, robust, begun, attack, share)
            )

        return report

    def add(self, chunk: _ChunkResult) -> None:
        """A chunk is done."""
        verdict = chunk.examples.verdict
        self.done += len(verdict)
        self.robust += sum(v is Verdict.ROBUST for v in verdict)

    def close(self) -> None:
        """No chunk is left."""
        self.on_progress(
            Progress(self.done, self.total, self.robust, self.done, "", 1.0)
        )


def _chunk(
    classifier: Classifier,
    data: Dataset,
    threat: ThreatModel,
    settings: Settings,
    folder: Path,
    start: int,
) -> _Chunk:
    part = data.subset(slice(start, start + settings.chunk_size))
    return _Chunk(classifier, part, threat, settings, folder, start)


class _Chunk:
    """One chunk: clean predictions, then each attack in turn."""

    def __init__(
        self,
        classifier: Classifier,
        data: Dataset,
        threat: ThreatModel,
        settings: Settings,
        folder: Path,
        start: int,
    ) -> None:
        self.classifier = classifier
        self.data = data
        self.threat = threat
        self.settings = settings
        self.folder = folder
        self.start = start
        self.y = data.labels

    @cached_property
    def x(self) -> Tensor:
        """The clean images."""
        return self.data.images(slice(None))

    def run(
        self,
        battery: Battery,
        report: Callable[[str, float, int], None] = lambda *_: None,
    ) -> _ChunkResult:
        """All attacks in turn, those of an earlier run from their files."""
        clean = self._clean()
        correct = clean == self.y
        survivors = correct.clone()
        found: dict[str, ChunkAttack] = {}
        for attack in battery.attacks:
            todo = survivors if attack.sequence else correct
            alive = int(survivors.sum())
            found[attack.name] = self._attack(
                attack,
                todo.nonzero().flatten(),
                lambda share, a=attack.name, n=alive: report(a, share, n),  # type: ignore[misc]
            )
            if attack.sequence:
                survivors[found[attack.name].rows] = False
        examples = Examples(
            index=self.data.positions.tolist(),
            label=self.y.tolist(),
            clean_prediction=clean.tolist(),
            verdict=[Verdict.UNDECIDED] * len(self.y),
            outcomes={name: part.outcomes for name, part in found.items()},
        )
        judged = examples.model_copy(update={"verdict": verdicts(examples)})
        files = {name: self._path(name) for name in found}
        return _ChunkResult(self.start, judged, found, files)

    def _path(self, name: str) -> Path:
        return self.folder / f"{self.start:08d}-{name}.safetensors"

    def _clean(self) -> Tensor:
        """Clean predictions, from the file of an earlier run if there is one."""
        path = self._path("clean")
        if path.exists():
            return read_tensors(path)[0]["clean"]
        clean = clean_predictions(self.classifier, self.x, self.settings)
        write_tensors(path, {"clean": clean}, {})
        return clean

    def _attack(
        self, attack: Attack, rows: Tensor, progress: Callable[[float], None]
    ) -> ChunkAttack:
        """From the file of an earlier run, or by running it now."""
        path = self._path(attack.name)
        if path.exists():
            return replace(_read(path), images=self.x[:0])
        progress(0.0)
        if len(rows):
            result = self._propose(attack, rows, progress)
        else:
            skipped = [Outcome.SKIPPED] * len(self.y)
            result = ChunkAttack(
                outcomes=skipped, rows=rows, images=self.x[:0], seconds=0.0
            )
        _write(path, result)
        _journal_path(path).unlink(missing_ok=True)
        return replace(result, images=self.x[:0])

    def _propose(
        self, attack: Attack, rows: Tensor, progress: Callable[[float], None]
    ) -> ChunkAttack:
        """Lets the attack propose, and decides."""
        journal = _Journal(_journal_path(self._path(attack.name)), rows)
        notes: list[str] = []
        unclear: list[Tensor] = []
        context = Context(
            seed=self.settings.seed,
            ids=torch.from_numpy(self.data.positions)[rows],
            batch_size=self.settings.batch_size,
            device=self.settings.device,
            progress=progress,
            note=notes.append,
            undecided=unclear.append,
            journal=Journal(journal.load, journal.save),
        )
        x, y = self.x[rows], self.y[rows]
        proposals = attack.propose(self.classifier, x, y, self.threat, context)
        check = check_adversarials(
            self.classifier,
            x,
            proposals,
            y,
            self.threat,
            batch_sizes=recheck_sizes(len(rows)),
            device=self.settings.device,
        )
        for row in (int(r) for part in unclear for r in part):
            if check.outcome[row] is Outcome.HELD:
                check.outcome[row] = Outcome.UNDECIDED
        outcomes = [Outcome.SKIPPED] * len(self.y)
        for row, outcome in zip(rows.tolist(), check.outcome, strict=True):
            outcomes[row] = outcome
        return ChunkAttack(
            outcomes=outcomes,
            rows=rows[check.fooled],
            images=proposals[check.fooled],
            seconds=journal.seconds(),
            notes=notes,
        )


def _journal_path(path: Path) -> Path:
    return path.with_suffix(".journal")


class _Journal:
    """What an attack on a chunk is in, as a file."""

    def __init__(self, path: Path, rows: Tensor) -> None:
        self.path = path
        self.rows = rows
        self.before = 0.0
        self.began = time.perf_counter()

    def seconds(self) -> float:
        """Time spent on it, an earlier process's included."""
        return self.before + time.perf_counter() - self.began

    def load(self) -> State:
        """What was saved, if it is about the same rows."""
        if not self.path.exists():
            return {}
        try:
            tensors, metadata = read_tensors(self.path)
        except UserError:
            return {}
        rows = tensors.pop("rows")
        if not torch.equal(rows, self.rows):
            return {}
        self.before = float(metadata["seconds"])
        return tensors

    def save(self, state: State) -> None:
        """Replaces what was saved."""
        seconds = {"seconds": self.seconds()}
        write_tensors(self.path, {**state, "rows": self.rows}, seconds)


@dataclass(frozen=True)
class _ChunkResult:
    start: int
    examples: Examples
    attacks: dict[str, ChunkAttack]
    """Without their images."""
    files: dict[str, Path]


def clean_predictions(classifier: Classifier, x: Tensor, settings: Settings) -> Tensor:
    """Predicted classes (n,); -1: logits not finite, or batch sizes disagree."""
    passes = [
        predict(classifier, x, batch_size=size, device=settings.device)
        for size in recheck_sizes(len(x))
    ]
    sure = passes[0].isfinite().all(dim=1) & passes[1].isfinite().all(dim=1)
    classes = [logits.argmax(dim=1) for logits in passes]
    sure &= classes[0] == classes[1]
    return torch.where(sure, classes[0], -1)


def recheck_sizes(n: int) -> tuple[int, int]:
    """Two batch sizes, neither of which an attack on n rows as one batch used."""
    return (100 if n != 100 else 99), (37 if n != 37 else 36)


def _merge(parts: Iterable[_ChunkResult], battery: Battery) -> Run:
    """All chunks as one run, in the order of the dataset."""
    names = [attack.name for attack in battery.attacks]
    chunks = list(parts)
    examples = Examples(
        index=[i for c in chunks for i in c.examples.index],
        label=[i for c in chunks for i in c.examples.label],
        clean_prediction=[i for c in chunks for i in c.examples.clean_prediction],
        verdict=[v for c in chunks for v in c.examples.verdict],
        outcomes={
            n: [o for c in chunks for o in c.examples.outcomes[n]] for n in names
        },
    )
    found = [
        (at, chunk.start, chunk.attacks[name])
        for chunk in chunks
        for at, name in enumerate(names)
    ]
    return Run(
        examples=examples,
        seconds={
            n: math.fsum(chunk.attacks[n].seconds for chunk in chunks) for n in names
        },
        notes={
            n: _unique(x for c in chunks for x in c.attacks[n].notes) for n in names
        },
        positions=_cat([part.rows + start for _, start, part in found]),
        attack_index=_cat([torch.full_like(p.rows, at) for at, _, p in found]),
        files=[c.files[n] for c in chunks for n in names if len(c.attacks[n].rows)],
    )


def _cat(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


def _unique(notes: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(notes))


def _write(path: Path, part: ChunkAttack) -> None:
    codes = [OUTCOMES.index(outcome) for outcome in part.outcomes]
    write_tensors(
        path,
        {
            "outcomes": torch.tensor(codes, dtype=torch.uint8),
            "rows": part.rows,
            "images": part.images,
        },
        {"seconds": part.seconds, "notes": part.notes},
    )


def _read(path: Path) -> ChunkAttack:
    tensors, metadata = read_tensors(path)
    return ChunkAttack(
        outcomes=[OUTCOMES[code] for code in tensors["outcomes"].tolist()],
        rows=tensors["rows"],
        images=tensors["images"],
        seconds=metadata["seconds"],
        notes=metadata["notes"],
    )
