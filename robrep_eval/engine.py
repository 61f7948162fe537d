"""Runs a battery over a dataset: chunk by chunk, resumable, every claim re-checked.

A chunk is the unit of progress: each (chunk, attack) is one file, written atomically,
so a killed run loses at most the attack it was in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from robrep_eval.attacks.base import Attack, Context
from robrep_eval.battery import Battery
from zoo.classifier import Classifier, predict
from zoo.datasets.base import Dataset
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
    images: Tensor
    """The counted adversarials, float32 (k, C, H, W)."""


def run_battery(
    classifier: Classifier,
    data: Dataset,
    threat: ThreatModel,
    battery: Battery,
    *,
    settings: Settings,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
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
    """
    chunks = []
    robust = 0
    for start in range(0, len(data), settings.chunk_size):
        part = data.subset(slice(start, start + settings.chunk_size))
        report = _reporter(on_progress, start, len(data), robust, len(part))
        chunk = _Chunk(classifier, part, threat, settings, folder, start)
        chunks.append(chunk.run(battery, report))
        robust += sum(v is Verdict.ROBUST for v in chunks[-1].examples.verdict)
    on_progress(Progress(len(data), len(data), robust, len(data), "", 1.0))
    return _merge(chunks, battery)


def _reporter(
    on_progress: Callable[[Progress], None], done: int, total: int, robust: int, n: int
) -> Callable[[str, float, int], None]:
    """Fills in what is the same throughout a chunk."""

    def report(attack: str, share: float, alive: int) -> None:
        on_progress(Progress(done, total, robust + alive, done + n, attack, share))

    return report


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
        self.x = data.images(slice(None))
        self.y = data.labels
        self.clean = clean_predictions(classifier, self.x, settings)

    def run(
        self, battery: Battery, report: Callable[[str, float, int], None]
    ) -> _ChunkResult:
        correct = self.clean == self.y
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
            clean_prediction=self.clean.tolist(),
            verdict=[Verdict.UNDECIDED] * len(self.y),
            outcomes={name: part.outcomes for name, part in found.items()},
        )
        judged = examples.model_copy(update={"verdict": verdicts(examples)})
        return _ChunkResult(self.start, judged, found)

    def _attack(
        self, attack: Attack, rows: Tensor, progress: Callable[[float], None]
    ) -> ChunkAttack:
        """From the file of an earlier run, or by running it now."""
        path = self.folder / f"{self.start:08d}-{attack.name}.safetensors"
        if path.exists():
            return _read(path)
        began = time.perf_counter()
        notes: list[str] = []
        outcomes = [Outcome.SKIPPED] * len(self.y)
        images = self.x[:0]
        kept = rows[:0]
        progress(0.0)
        if len(rows):
            context = Context(
                seed=self.settings.seed,
                ids=torch.from_numpy(self.data.positions)[rows],
                batch_size=self.settings.batch_size,
                device=self.settings.device,
                progress=progress,
                note=notes.append,
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
            for row, outcome in zip(rows.tolist(), check.outcome, strict=True):
                outcomes[row] = outcome
            kept, images = rows[check.fooled], proposals[check.fooled]
        result = ChunkAttack(
            outcomes=outcomes,
            rows=kept,
            images=images,
            seconds=time.perf_counter() - began,
            notes=notes,
        )
        _write(path, result)
        return result


@dataclass(frozen=True)
class _ChunkResult:
    start: int
    examples: Examples
    attacks: dict[str, ChunkAttack]


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


def _merge(chunks: list[_ChunkResult], battery: Battery) -> Run:
    """All chunks as one run, in the order of the dataset."""
    names = [attack.name for attack in battery.attacks]
    parts = [c.examples for c in chunks]
    examples = Examples(
        index=[i for part in parts for i in part.index],
        label=[i for part in parts for i in part.label],
        clean_prediction=[i for part in parts for i in part.clean_prediction],
        verdict=[v for part in parts for v in part.verdict],
        outcomes={n: [o for part in parts for o in part.outcomes[n]] for n in names},
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
        images=torch.cat([part.images for _, _, part in found])
        if found
        else torch.zeros(0),
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
