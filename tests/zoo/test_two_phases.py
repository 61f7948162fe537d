"""An audit's interval against the truth, and what it says against its evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zoo.records import Examples, Outcome, Verdict
from zoo.two_phases import count_of, draw, recount
from zoo.verdicts import verdicts

N, LEFT, DRAWS = 150, 120, 1000
FIRST, SECOND = ["cheap"], ["strong"]


def examples(strong: list[Outcome]) -> Examples:
    """The first images fall to the cheap attack; the strong one does as told."""
    cheap = [Outcome.FOOLED] * (N - LEFT) + [Outcome.HELD] * LEFT
    found = Examples(
        index=list(range(N)),
        label=[1] * N,
        clean_prediction=[1] * N,
        verdict=[Verdict.UNDECIDED] * N,
        outcomes={"cheap": cheap, "strong": strong},
    )
    return found.model_copy(update={"verdict": verdicts(found)})


def audited(truth: set[int], count: int, seed: int) -> Any:
    """An audit of `count` images, where exactly those in `truth` would fall."""
    nothing = [Outcome.SKIPPED] * N
    strong = list(nothing)
    for row in draw(examples(nothing), FIRST, count, seed):
        strong[row] = Outcome.FOOLED if row in truth else Outcome.HELD
    return recount(examples(strong), FIRST, SECOND, count, seed)


@pytest.mark.parametrize(("falls", "count"), [(0, 30), (2, 30), (15, 40), (60, 10)])
def test_the_interval_covers_the_truth(falls: int, count: int) -> None:
    rng = np.random.default_rng(falls)
    truth = set((N - LEFT + rng.permutation(LEFT)[:falls]).tolist())
    found = [audited(truth, count, seed) for seed in range(DRAWS)]
    covered = sum(a.robust_low <= LEFT - falls <= a.robust_high for a in found)
    assert covered >= 0.95 * DRAWS
    assert {a.drawn for a in found} == {count}
    assert {a.standing for a in found} == {LEFT}
    # Without the sample nothing would be known below what the cheap attack left.
    assert all(a.robust_low > 0 for a in found) or falls > 50


def test_every_image_left_is_drawn_as_often() -> None:
    nothing = examples([Outcome.SKIPPED] * N)
    times = np.zeros(N)
    for seed in range(DRAWS):
        times[draw(nothing, FIRST, 30, seed)] += 1
    assert times[: N - LEFT].sum() == 0
    expected = DRAWS * 30 / LEFT
    spread = ((times[N - LEFT :] - expected) ** 2 / (expected * (1 - 30 / LEFT))).sum()
    assert 60 < spread < 200, "chi squared of 119 degrees of freedom"


def test_all_that_are_left_is_the_truth_itself() -> None:
    found = audited({N - 1, N - 2}, 10**6, 0)
    assert (found.drawn, found.fell) == (LEFT, 2)
    assert found.robust_low == found.robust_high == LEFT - 2


def test_undecided_is_not_robust() -> None:
    nothing = [Outcome.SKIPPED] * N
    strong = list(nothing)
    for row in draw(examples(nothing), FIRST, 20, 3):
        strong[row] = Outcome.UNDECIDED
    assert recount(examples(strong), FIRST, SECOND, 20, 3).fell == 20


def test_only_the_last_word_is_an_audit() -> None:
    assert count_of("fast,audit:500") == 500
    for battery in ("audit:500", "fast", "audit:5,fast", "fast,audit:05", "x,audit:0"):
        assert count_of(battery) is None
