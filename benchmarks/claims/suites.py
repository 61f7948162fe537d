"""Claims of one method against another over a suite: entries of several seeds.

Units are images and seeds: the mean over the tasks of a suite, averaged over seeds, and
paired by image; both are drawn again, and with several seeds of both the interval is no
shorter than Welch's (`robrep_eval.run.suite_figures.difference`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

from benchmarks.claims.verdict import Verdict, What, sentence
from robrep_eval.run.suite_figures import difference
from robrep_eval.run.suite_totals import answers_of
from zoo.collection.entries import read_entry
from zoo.collection.opening import open_source
from zoo.datasets.derived_names import parts_of
from zoo.datasets.names import split_name
from zoo.judgement import MARKED
from zoo.judgement import judge as judgement
from zoo.records import Result
from zoo.suites.suite import Suite, Task, load_suite
from zoo.task_version import PROTOCOLS
from zoo.threat import parse_eps

BATTERY = "fast"
FEWER = {"digits": 360}
"""Test images of datasets that have fewer than a suite asks for."""
SHOWN = {name.lower(): name for name in PROTOCOLS}
Images = Literal["all", "own", "other"]
"""Tasks of all images, of those of the pretraining's dataset, or of other datasets'."""


@dataclass(frozen=True, kw_only=True)
class SuiteClaim:
    """A sentence about means over a suite, and what it stands on."""

    suite: str
    a: tuple[str, ...]
    """Encoders, seeds of one method."""
    b: tuple[str, ...]
    probe: str = "slf"
    what: What = "robust"
    margin: float = 0.0
    """Points that A may be behind; 0: A is ahead."""
    tasks: tuple[str, ...] = ()
    """Some of the suite's; all by default."""
    images: Images = "all"

    @property
    def text(self) -> str:
        """ "suite S, SLF: A is ahead of B under attack"."""
        said = sentence(self.a[0], self.b[0], self.what, self.margin)
        images = () if self.images == "all" else (f"{self.images} images",)
        on = ", ".join((self.suite, *images, *self.tasks, SHOWN[self.probe]))
        return f"{on}: {said}"

    def concerns(self, task: Task, suite: Suite) -> bool:
        """Whether a task of the suite counts."""
        if self.tasks and task.name not in self.tasks:
            return False
        own = parts_of(split_name(task.dataset)[0])[0] == suite.pretraining
        return self.images == "all" or own == (self.images == "own")


def judge(claim: SuiteClaim) -> Verdict:
    """Tests a claim on the published records.

    Raises:
        ValueError: an encoder without an entry on one of the tasks, or entries that
            were made with different batteries or on different images.
    """
    suite = load_suite(claim.suite)
    asked = {task.name for task in suite.tasks if claim.concerns(task, suite)}
    sides = [
        [
            {
                name: result
                for name, result in results(encoder, suite, claim.probe).items()
                if name in asked
            }
            for encoder in side
        ]
        for side in (claim.a, claim.b)
    ]
    a, b = answers_of(*sides)
    found = difference(a, b, claim.what)
    low, high = 100 * found.low, 100 * found.high
    tasks = "1 task" if len(a[0]) == 1 else f"{len(a[0])} tasks"
    images = sum({one.images: len(one.clean) for one in a[0].values()}.values())
    return Verdict(
        difference=100 * found.value,
        low=low,
        high=high,
        p_value=None,
        units=", ".join(
            [f"{len(a)} and {len(b)} seeds", tasks, f"{images} images", *_marked(sides)]
        ),
        holds=low > -claim.margin,
    )


def _marked(sides: Iterable[Iterable[Mapping[str, Result]]]) -> list[str]:
    """How many of the evaluations health checks call what, as "1 broken"."""
    judged = Counter(
        judgement(result.measurements.health)
        for side in sides
        for found in side
        for result in found.values()
    )
    return [f"{judged[word]} {word}" for word in MARKED if judged[word]]


def results(encoder: str, suite: Suite, probe: str) -> dict[str, Result]:
    """The published results of an encoder on each task of a suite, in its order.

    Raises:
        ValueError: as `entries`.
    """
    found = entries(encoder, suite, probe)
    return {task: result for task, (_, result) in found.items()}


def entries(encoder: str, suite: Suite, probe: str) -> dict[str, tuple[str, Result]]:
    """The same, each with the name of its entry.

    Raises:
        ValueError: there is none on a task, or more than one.
    """
    found = {}
    for task in suite.tasks:
        asked = (task.dataset, parse_eps(task.eps), task.labels, SHOWN[probe])
        fitting = [
            (name, result)
            for name, result in _entries(encoder)
            if _asked(result, suite) == asked
        ]
        if len(fitting) != 1:
            raise ValueError(f"{len(fitting)} entries of {encoder} on {task.name}")
        found[task.name] = fitting[0]
    return found


def _asked(result: Result, suite: Suite) -> tuple[object, ...] | None:
    """Dataset, eps, labels and protocol; None if it is no result of this suite."""
    probe = result.probe
    if probe is None or result.task is None:
        return None
    if result.task.probe != PROTOCOLS[probe.protocol]:
        return None
    if (result.battery, result.threat.norm) != (BATTERY, suite.norm):
        return None
    few = [most for name, most in FEWER.items() if result.dataset.name.startswith(name)]
    if result.dataset.n != min([suite.images, *few]):
        return None
    return (result.dataset.name, result.threat.eps, probe.labels, probe.protocol)


@cache
def _entries(encoder: str) -> Sequence[tuple[str, Result]]:
    source = open_source("embedded")
    row = source.find(encoder)
    return [(name, read_entry(source, row, name).result) for name in row.entries]


def seeds(name: str, dataset: str, count: int = 3) -> tuple[str, ...]:
    """Encoders of one recipe that differ in their seed."""
    words = ["", *(f"-seed{seed}" for seed in range(1, count))]
    return tuple(f"{name}{word}-{dataset}" for word in words)


FASHION, PHOTOS = "fashion-mnist", "cifar10-jpeg"
SPECTRAL = seeds("spectral-c30-grid", FASHION)
HUNDRED = seeds("spectral-grid", FASHION)
LABELS = seeds("pgd-at-k2-grid", FASHION)
POOLED = seeds("pgd-at-k2", FASHION)
PHOTOS_SPECTRAL = (f"spectral-grid-{PHOTOS}",)
PHOTOS_LABELS = (f"pgd-at-grid-{PHOTOS}",)
MID_SPECTRAL = seeds("spectral-mid", PHOTOS)
MID_LABELS = seeds("pgd-at-mid", PHOTOS)


def _pair(
    suite: str,
    a: tuple[str, ...],
    b: tuple[str, ...],
    *,
    own: str,
    margin: float,
    probe: str = "slf",
) -> Iterator[SuiteClaim]:
    """Ahead over all tasks, not behind when clean; within a margin on own labels."""
    say = partial(SuiteClaim, suite=suite, a=a, b=b, probe=probe)
    yield say()
    yield say(what="clean", margin=1)
    yield say(tasks=(own,), margin=margin)


def _parts(
    suite: str, a: tuple[str, ...], b: tuple[str, ...], probe: str = "slf"
) -> Iterator[SuiteClaim]:
    """A ahead on images of other datasets, B on those that both were trained on."""
    yield SuiteClaim(suite=suite, a=a, b=b, probe=probe, images="other")
    yield SuiteClaim(
        suite=suite, a=a, b=b, probe=probe, images="other", what="clean", margin=1
    )
    yield SuiteClaim(suite=suite, a=b, b=a, probe=probe, images="own")


ON_HANDWRITING = (
    SuiteClaim(suite="handwriting", a=SPECTRAL, b=LABELS),
    SuiteClaim(suite="handwriting", a=SPECTRAL, b=LABELS, what="clean", margin=1),
)
"""Written down before anything was evaluated on that suite."""
ON_PHOTOS = SuiteClaim(suite=PHOTOS, a=MID_LABELS, b=MID_SPECTRAL, images="own")
ON_OTHER_PHOTOS = replace(ON_PHOTOS, images="other")
ON_CLOTHING = (SuiteClaim(suite=FASHION, a=LABELS, b=SPECTRAL, images="own"),)
STATEMENTS = {
    "By battery `fast`, in the mean of eight questions about handwritten digits "
    "`spectral-c30-grid`, trained on clothing without labels, is ahead of PGD-AT with "
    "as many features under attack.": ON_HANDWRITING[:1],
    "In the mean of eight tasks about clothing PGD-AT is ahead of it; trained on "
    "photographs, PGD-AT is ahead of `spectral-mid` on their own images and on "
    "others.": (
        *ON_CLOTHING,
        ON_PHOTOS,
        ON_OTHER_PHOTOS,
    ),
}
"""Comparative sentences of the README, and what each rests on."""
CLAIMS = (
    *_pair(FASHION, SPECTRAL, LABELS, own="clothing-10%", margin=3),
    *_pair(FASHION, SPECTRAL, POOLED, own="clothing-10%", margin=3),
    *_pair(FASHION, HUNDRED, LABELS, own="clothing-10%", margin=3),
    *_pair(FASHION, HUNDRED, POOLED, own="clothing-10%", margin=3),
    *_pair(FASHION, SPECTRAL, LABELS, own="clothing-10%", margin=3, probe="slf-r"),
    *_pair(PHOTOS, PHOTOS_SPECTRAL, PHOTOS_LABELS, own="objects-10%", margin=5),
    *_pair(
        PHOTOS,
        PHOTOS_SPECTRAL,
        PHOTOS_LABELS,
        own="objects-10%",
        margin=5,
        probe="slf-r",
    ),
    *_pair(PHOTOS, MID_SPECTRAL, MID_LABELS, own="objects-10%", margin=5),
    SuiteClaim(suite=FASHION, a=LABELS, b=POOLED),
    SuiteClaim(suite=FASHION, a=SPECTRAL, b=HUNDRED),
    *_parts(FASHION, SPECTRAL, LABELS),
    *_parts(FASHION, HUNDRED, LABELS),
    *_parts(FASHION, SPECTRAL, LABELS, probe="slf-r"),
    *_parts(PHOTOS, MID_SPECTRAL, MID_LABELS),
    ON_OTHER_PHOTOS,
    *ON_HANDWRITING,
)
"""The aims: ahead of PGD-AT in the mean at no less clean accuracy; near it on the
labels that it was trained with. Then other images than those of the pretraining, and
its own: asked after the tables had been read. Last `handwriting`, written down before
anything was evaluated on it."""


def rows() -> list[list[str]]:
    """Of the table, in the order of `HEADINGS`."""
    return [judge(claim).cells(claim.text) for claim in CLAIMS]
