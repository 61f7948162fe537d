"""Mean and worst over the tasks of a suite, with intervals by the bootstrap.

Two things vary: which images a test split happens to hold, and, where several models
of one method are given, which seed made them. Both are drawn again with replacement
(Efron & Tibshirani 1993), the models first. Tasks on the same images draw the same
ones, and so do the models: what is hard for one is hard for the other.

With three seeds such an interval of a difference is too short where seeds alone vary
(it then holds 81% and not 95%), so where both sides have several it is the wider one of
it and of Welch's t over the seeds' means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.stats import ttest_ind

from zoo.records import Proportion, Record
from zoo.schema import Share

DRAWS = 2000
LEVEL = 0.95
ROUNDING = 1e-9
"""Of means: tasks that differ by less are equal."""
Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]
Signed = Annotated[float, Field(ge=-1, le=1)]


class Estimate(Record):
    """A share with its interval: by percentiles of the bootstrap, but for one model on
    one task, where it is exact."""

    value: Share
    low: Share
    high: Share

    def __str__(self) -> str:
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:.1f} [{low:.1f}, {high:.1f}]"


class Difference(Record):
    """Of two shares, with its interval, by percentiles of the bootstrap; of several
    seeds on both sides no shorter than Welch's."""

    value: Signed
    low: Signed
    high: Signed

    def __str__(self) -> str:
        """In points."""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:+.1f} [{low:+.1f}, {high:+.1f}]"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model came to on one task."""

    images: str
    """Names the images: tasks on equal ones are drawn together."""
    clean: Truths
    """(n,): correct without attack."""
    robust: Truths
    """(n,): correct under all attacks."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Over all tasks."""

    mean: Estimate
    worst: Estimate
    """Of the task on which it is lowest; the interval is of that task alone (the first
    of equal ones), exact for one model, and by the bootstrap for several."""
    worst_tasks: list[str]
    """More than one where they are equal."""


def figures(
    models: Sequence[Mapping[str, Answers]], kind: str, *, seed: int = 0
) -> Figures:
    """Mean and worst over tasks of one model, or of the average of several.

    Args:
        models: Answers by task; all with the same tasks, on the same images.
        kind: "clean" or "robust".
        seed: Of the draws.

    Raises:
        ValueError: the models were measured on different tasks or images.
    """
    tasks = _tasks(models)
    drawn = _means(models, tasks, kind, seed)
    whole = drawn[0]
    lowest = np.flatnonzero(whole < whole.min() + ROUNDING).tolist()
    worst = lowest[0]
    return Figures(
        mean=_estimate(whole.mean(), drawn[1:].mean(axis=1)),
        worst=_exact(getattr(models[0][tasks[worst]], kind))
        if len(models) == 1
        else _estimate(whole[worst], drawn[1:, worst]),
        worst_tasks=[tasks[at] for at in lowest],
    )


def difference(
    a: Sequence[Mapping[str, Answers]],
    b: Sequence[Mapping[str, Answers]],
    kind: str,
    *,
    seed: int = 0,
) -> Difference:
    """Mean over tasks of one method less that of another, paired by image.

    Args:
        a: Answers by task, of one model or of several that are averaged.
        b: Of the other method, on the same tasks and images.
        kind: "clean" or "robust".
        seed: Of the draws: both sides see the same images; each draws its own models.

    Raises:
        ValueError: the models were measured on different tasks or images.
    """
    tasks = _tasks([*a, *b])
    drawn = _means(a, tasks, kind, seed) - _means(b, tasks, kind, seed, side=1)
    means = drawn.mean(axis=1)
    low, high = _interval(means[1:])
    if min(len(a), len(b)) > 1:
        by_seeds = welch(*(_of_each(side, tasks, kind) for side in (a, b)))
        low, high = min(low, by_seeds[0]), max(high, by_seeds[1])
    return Difference(value=float(means[0]), low=max(low, -1), high=min(high, 1))


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """95% interval of the difference of two means, their variances not the same.

    Welch (1947); that of the difference itself if neither side varies.
    """
    if np.ptp(a) == np.ptp(b) == 0:
        return a[0] - b[0], a[0] - b[0]
    interval = ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
    return float(interval.low), float(interval.high)


def _of_each(
    models: Sequence[Mapping[str, Answers]], tasks: Sequence[str], kind: str
) -> list[float]:
    """The mean over tasks of each model."""
    return [
        float(np.mean([getattr(model[task], kind).mean() for task in tasks]))
        for model in models
    ]


def _tasks(models: Sequence[Mapping[str, Answers]]) -> list[str]:
    """Those of each model, after a check that they are the same ones."""
    tasks = list(models[0])
    for model in models:
        if list(model) != tasks or any(
            model[task].images != models[0][task].images for task in tasks
        ):
            raise ValueError("the models were measured on different tasks")
    return tasks


def _means(
    models: Sequence[Mapping[str, Answers]],
    tasks: Sequence[str],
    kind: str,
    seed: int,
    *,
    side: int = 0,
) -> Floats:
    """Accuracies (1 + DRAWS, tasks), averaged over models, drawn as well."""
    found = _drawn(models, tasks, kind, seed)  # (1 + draws, models, tasks)
    which = np.random.default_rng([seed, 1 + side]).integers(
        0, len(models), (DRAWS, len(models))
    )
    chosen = np.take_along_axis(found[1:], which[:, :, None], axis=1).mean(axis=1)
    return np.concatenate([found[:1].mean(axis=1), chosen])


def _drawn(
    models: Sequence[Mapping[str, Answers]], tasks: Sequence[str], kind: str, seed: int
) -> Floats:
    """Accuracies (1 + DRAWS, models, tasks): first as measured, then as drawn."""
    found = np.empty((1 + DRAWS, len(models), len(tasks)))
    weights: dict[str, Floats] = {}
    for at, task in enumerate(tasks):
        images = models[0][task].images
        n = len(models[0][task].clean)
        if images not in weights:
            draw = np.random.default_rng([seed, 0, len(weights)])
            counts = draw.multinomial(n, np.full(n, 1 / n), DRAWS)
            weights[images] = np.concatenate([np.ones((1, n)), counts])
        held = np.stack([getattr(model[task], kind) for model in models], axis=1)
        found[:, :, at] = weights[images] @ held.astype(np.float64) / n
    return found


def _estimate(value: float, draws: Floats) -> Estimate:
    low, high = (min(max(one, 0.0), 1.0) for one in _interval(draws))
    return Estimate(value=min(max(float(value), 0.0), 1.0), low=low, high=high)


def _exact(held: Truths) -> Estimate:
    """Of one model on one task, as tables of tasks have it (Clopper-Pearson)."""
    one = Proportion.of(int(held.sum()), len(held))
    return Estimate(value=one.value, low=one.low, high=one.high)


def _interval(draws: Floats) -> tuple[float, float]:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)
