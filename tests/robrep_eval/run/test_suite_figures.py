"""Mean, worst and differences over the tasks of a suite, with their intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from scipy.stats import t as student

from robrep_eval.run.suite_figures import Answers, difference, figures


def answers(held: Any, images: str = "a") -> Answers:
    found = np.asarray(held, dtype=bool)
    return Answers(images=images, clean=np.ones_like(found), robust=found)


def drawn(share: float, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < share


def width(model: dict[str, Answers], *more: dict[str, Answers]) -> float:
    found = figures([model, *more], "robust").mean
    return found.high - found.low


def test_one_task_has_the_interval_of_an_independent_bootstrap() -> None:
    held = drawn(0.7, 400)
    found = figures([{"one": answers(held)}], "robust")
    other = bootstrap(
        (held.astype(float),), np.mean, n_resamples=4000, method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found.mean.value == held.mean()
    assert found.mean.low == pytest.approx(other.low, abs=0.01)
    assert found.mean.high == pytest.approx(other.high, abs=0.01)


def test_mean_and_worst_are_over_tasks() -> None:
    model = {"good": answers(drawn(0.9, 300)), "bad": answers(drawn(0.4, 300))}
    found = figures([model], "robust")
    shares = {name: float(each.robust.mean()) for name, each in model.items()}
    assert found.mean.value == pytest.approx(sum(shares.values()) / 2)
    assert found.worst.value == pytest.approx(shares["bad"])
    assert found.worst_tasks == ["bad"]
    clean = figures([model], "clean")
    assert (clean.mean.low, clean.worst.high) == (1, 1)
    assert clean.worst_tasks == ["good", "bad"]


def test_tasks_on_the_same_images_are_drawn_together() -> None:
    held = drawn(0.5, 400)
    alone = width({"one": answers(held)})
    same = width({"one": answers(held), "two": answers(held)})
    apart = width({"one": answers(held), "two": answers(held, "b")})
    assert same == pytest.approx(alone)
    assert apart == pytest.approx(alone / math.sqrt(2), rel=0.1)


def test_seeds_that_differ_widen_the_interval() -> None:
    low, high = ({"one": answers(drawn(share, 400))} for share in (0.5, 0.8))
    assert width(low, high) > 0.25 > width(low, low)
    assert width(low, low) == pytest.approx(width(low))
    both = figures([low, high], "robust")
    assert both.mean.value == pytest.approx(
        (low["one"].robust.mean() + high["one"].robust.mean()) / 2
    )


def test_a_difference_is_paired() -> None:
    """Twenty images fewer of the same ones: no width but that of twenty in 400."""
    held = drawn(0.5, 400)
    lost = held & (np.cumsum(held) > 20)
    a, b = ({"one": answers(each)} for each in (held, lost))
    found = difference([a], [b], "robust")
    assert found.value == pytest.approx(20 / 400)
    other = bootstrap(
        (held.astype(float) - lost,), np.mean, n_resamples=4000, method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found.low == pytest.approx(other.low, abs=0.004)
    assert found.high == pytest.approx(other.high, abs=0.004)
    assert difference([b], [a], "robust").value == -found.value
    same = difference([a], [a], "robust")
    assert (same.low, same.high) == (0, 0)


def test_a_difference_counts_both_seeds_and_images() -> None:
    draws = np.random.default_rng(0)
    p = np.linspace(0.65, 0.75, 12)
    a, b = draws.random((12, 400)) < p[:, None], draws.random((12, 400)) < 0.5
    left, right = ([{"one": answers(held)} for held in side] for side in (a, b))
    found = difference(left, right, "robust")
    assert found.value == pytest.approx(a.mean() - b.mean())
    # Variance of a mean of seeds and of a mean of images, which add up here.
    of_seeds = sum(side.mean(axis=1).var() / len(side) for side in (a, b))
    of_images = (a.mean(axis=0) - b.mean(axis=0)).var() / 400
    width = 2 * 1.96 * np.sqrt(of_seeds + of_images)
    assert found.high - found.low == pytest.approx(width, rel=0.25)


def test_a_difference_of_methods_draws_their_seeds_apart() -> None:
    low, high = ({"one": answers(drawn(share, 400))} for share in (0.5, 0.8))
    found = difference([low, high], [low, high], "robust")
    assert found.value == 0
    assert found.low < -0.2
    assert found.high > 0.2
    assert difference([high], [low], "robust").low > 0.2
    with pytest.raises(ValueError, match="different tasks"):
        difference([low], [{"two": low["one"]}], "robust")


def test_the_interval_of_the_worst_task_holds_its_figure() -> None:
    """Also where many tasks are as bad: the least of ten draws lies below all."""
    model = {str(at): answers(np.arange(360) < 306, images=str(at)) for at in range(10)}
    found = figures([model], "robust").worst
    assert found.value == pytest.approx(0.85)
    exact = binomtest(306, 360).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_means_of_seeds_are_equal_whatever_their_order() -> None:
    """(0.1 + 0.2 + 0.3) / 3 is not (0.3 + 0.2 + 0.1) / 3 in floats."""
    shares = {"a": (0.1, 0.2, 0.3), "b": (0.3, 0.2, 0.1), "c": (0.5, 0.5, 0.5)}
    models = [
        {task: answers(np.arange(10) < 10 * of[at]) for task, of in shares.items()}
        for at in range(3)
    ]
    assert figures(models, "robust").worst_tasks == ["a", "b"]


def test_a_worst_task_of_which_nothing_stands_is_not_sure() -> None:
    """The bootstrap alone would say [0, 0] of twenty images."""
    model = {"lost": answers(np.zeros(20, bool)), "held": answers(np.ones(20, bool))}
    found = figures([model], "robust").worst
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(binomtest(0, 20).proportion_ci().high)


def test_a_difference_of_few_seeds_is_no_surer_than_welch() -> None:
    """By the formulas of Welch (1947) and Satterthwaite, images not varying."""
    shares = (0.5, 0.6, 0.7), (0.4, 0.41, 0.42)
    a, b = (
        [{"one": answers(np.arange(100) < 100 * p)} for p in side] for side in shares
    )
    found = difference(a, b, "robust")
    parts = [np.var(side, ddof=1) / 3 for side in shares]
    free = sum(parts) ** 2 / sum(part**2 / 2 for part in parts)
    half = student.ppf(0.975, free) * math.sqrt(sum(parts))
    assert found.low <= found.value - half + 1e-9
    assert found.high >= found.value + half - 1e-9
    assert found.high - found.low < 2.6 * half
    same = difference(a[:1] * 2, b[:1] * 2, "robust")
    assert same.low > 0


def test_models_on_other_tasks_are_refused() -> None:
    one = {"one": answers(drawn(0.5, 9))}
    for other in ({"two": one["one"]}, {"one": answers(drawn(0.5, 9), "b")}):
        with pytest.raises(ValueError, match="different tasks"):
            figures([one, other], "robust")
