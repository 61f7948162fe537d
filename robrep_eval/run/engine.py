"""Runs a battery over a dataset: chunk by chunk, resumable, every claim re-checked.

Each (chunk, attack) is one file, written atomically, and attacks of robrep's own
engine journal what they are in every few seconds, so a killed run loses no more than
that. Chunks are shared out among processes by `robrep_eval.run.shards`. Adversarials
stay in the files until the evidence is written: memory does not grow with the examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from robrep_eval.attacks.battery import Battery
from robrep_eval.attacks.checks import check_classifier
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.prepared import POINTS, prepare
from robrep_eval.attacks.problem import ITSELF
from robrep_eval.attacks.rounds import RoundsAttack
from robrep_eval.run.chunk import BatterySettings, Chunk, ChunkResult, read_chunk
from robrep_eval.run.chunk_size import chunk_size
from robrep_eval.run.shards import Shards
from zoo.classifier import Classifier
from zoo.compact import Packed
from zoo.datasets.base import Dataset
from zoo.records import Examples, Verdict
from zoo.threat import ThreatModel
from zoo.two_phases import draw


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
    network: dict[str, str] = field(default_factory=dict)
    """What each attack of robrep's engine asked, by its name."""

    def parts(self) -> Iterator[Packed]:
        """The counted adversarials, a file at a time."""
        for path in self.files:
            yield read_chunk(path).images


def run_battery(
    classifier: Classifier,
    data: Dataset,
    threat: ThreatModel,
    battery: Battery,
    *,
    settings: BatterySettings,
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
    network, why = _networks(classifier, data, threat, battery)
    size = chunk_size(
        folder, battery, data, most=settings.chunk_size, world=shards.world
    )
    settings = replace(settings, chunk_size=size)
    starts = range(0, len(data), size)

    def chunk(start: int) -> Chunk:
        return _chunk(classifier, data, threat, settings, folder, start)

    def attack_all(attacks: Battery, name: str, sample: Sequence[int] = ()) -> None:
        tally = _Tally(on_progress, len(data))
        for number in shards.chunks(len(starts), name):
            part = chunk(starts[number])
            tally.add(part.run(attacks, tally.reporter(len(part.data)), sample))
        tally.close()
        shards.gather(name, everyone=bool(battery.audited))

    sample: list[int] = []
    attack_all(battery.before, "all")
    if battery.audited:
        first = _merge(
            (chunk(start).run(battery.before) for start in starts), battery.before
        )
        names = [attack.name for attack in battery.before.attacks]
        sample = draw(first.examples, names, battery.sample, settings.seed)
        attack_all(battery, "sample", sample)
    merged = (
        chunk(start).run(battery, sample=sample)
        for start in (starts if shards.leader else ())
    )
    run = _merge(merged, battery)
    run.warnings = [*warnings, *why]
    run.network = network
    return run


def _networks(
    classifier: Classifier, data: Dataset, threat: ThreatModel, battery: Battery
) -> tuple[dict[str, str], list[str]]:
    """Makes ready what the engine's attacks ask; what that is, and what to say."""
    ours = [a for a in battery.attacks if isinstance(a, EngineAttack | RoundsAttack)]
    exact = {a.name: a.randomness == "official-rng" for a in ours}
    if all(exact.values()):
        return dict.fromkeys(exact, ITSELF), []
    model = prepare(classifier, around=(data.images(slice(POINTS)), threat))
    network = {name: ITSELF if exact[name] else model.kind for name in exact}
    if not model.why:
        return network, []
    return network, [
        f"robrep's engine attacked {ITSELF}, not a faster copy: {model.why}"
    ]


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

    def add(self, chunk: ChunkResult) -> None:
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
    settings: BatterySettings,
    folder: Path,
    start: int,
) -> Chunk:
    part = data.subset(slice(start, start + settings.chunk_size))
    return Chunk(classifier, part, threat, settings, folder, start)


def _merge(parts: Iterable[ChunkResult], battery: Battery) -> Run:
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
