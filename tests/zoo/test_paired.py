"""Paired statistics against statsmodels, published examples and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import proportion_confint

from zoo.paired import better, mcnemar, paired_difference, paired_interval, wilson


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_the_p_value_is_statsmodels_exact_one(only_a: int, only_b: int) -> None:
    table = [[10, only_a], [only_b, 10]]
    want = reference_mcnemar(table, exact=True).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(want, rel=1e-9)


@given(st.integers(0, 200), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_wilson_is_statsmodels_one(k: int, n: int) -> None:
    k = min(k, n)
    want = proportion_confint(k, n, method="wilson")
    assert wilson(k, n) == pytest.approx(want, abs=1e-12)


PUBLISHED = [
    ((36, 2, 12, 0), (0.0569, 0.3404)),
    ((20, 2, 12, 16), (0.0562, 0.3292)),
    ((18, 0, 14, 18), (0.1441, 0.3963)),
]
"""Both, only A, only B, neither; Newcombe 1998, table II, method 10."""


@pytest.mark.parametrize(("counts", "interval"), PUBLISHED)
def test_the_interval_of_the_published_examples(
    counts: tuple[int, int, int, int], interval: tuple[float, float]
) -> None:
    assert paired_interval(*counts) == pytest.approx(interval, abs=5e-5)
    a = np.repeat([True, True, False, False], counts)
    b = np.repeat([True, False, True, False], counts)
    row = paired_difference("x", a, b)
    assert (row.low, row.high) == pytest.approx(interval, abs=5e-5)


def test_the_interval_covers_the_true_difference_about_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    cells = np.array([0.5, 0.05, 0.15, 0.3])  # both, only a, only b, neither
    hits = 0
    for counts in rng.multinomial(100, cells, size=2000):
        low, high = paired_interval(*map(int, counts))
        hits += low <= 0.10 <= high
    assert 0.935 <= hits / 2000 <= 0.975


def test_equal_columns_do_not_differ_and_swapping_mirrors() -> None:
    a = np.array([True, True, False, True, False, False, True, True])
    same = paired_difference("x", a, a)
    assert same.difference == 0
    assert same.p_value == 1
    assert same.low <= 0 <= same.high
    b = np.array([True, False, True, True, True, True, True, True])
    one, other = paired_difference("x", a, b), paired_difference("x", b, a)
    assert one.difference == -other.difference == pytest.approx(2 / 8)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert (one.only_a, one.only_b) == (1, 3)


def test_many_decisions_are_those_of_the_p_values() -> None:
    only_a, only_b = np.mgrid[:25, :25]
    found = better(only_a, only_b)
    for a in range(25):
        for b in range(25):
            apart = a + b > 0 and binomtest(a, a + b).pvalue < 0.05
            assert found[a, b] == (np.sign(a - b) if apart else 0), (a, b)


@given(st.integers(1, 20_000), st.floats(0.4, 0.6))
@settings(max_examples=60, deadline=None)
def test_large_decisions_too(total: int, part: float) -> None:
    a = round(total * part)
    want = binomtest(a, total).pvalue < 0.05
    (found,) = better(np.array([a]), np.array([total - a]))
    assert bool(found) == want
