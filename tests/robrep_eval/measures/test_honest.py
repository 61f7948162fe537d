"""How many images are too many: against a count by hand, and the known cases."""

from __future__ import annotations

import pytest
from scipy.stats import fisher_exact

from robrep_eval.measures.health.honest import HIDDEN, RARE, Rate, allowed


def peer(count: int, total: int, honest: Rate) -> float:
    """Fisher's exact test by scipy, one-sided."""
    table = [
        [count, total - count],
        [honest.count, honest.total - honest.count],
    ]
    return float(fisher_exact(table, alternative="greater").pvalue)


@pytest.mark.parametrize("total", [1, 5, 30, 93, 558, 4000])
def test_what_is_allowed_is_the_last_that_fishers_test_does_not_call_rare(
    total: int,
) -> None:
    for honest in (HIDDEN, Rate(count=40, total=800)):
        most = allowed(total, honest)
        assert not most or peer(most, total, honest) >= RARE
        assert most == total or peer(most + 1, total, honest) < RARE


def test_two_of_ninety_three_are_too_many_and_two_of_558_are_not() -> None:
    """The decoys of which Square found two images; the entry that shows the most."""
    assert allowed(93, HIDDEN) < 2
    assert allowed(558, HIDDEN) >= 2
    assert allowed(0, HIDDEN) == 0
