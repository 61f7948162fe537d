"""The interval of a sample without replacement, against counting all samples."""

from __future__ import annotations

from math import comb

import pytest

from zoo.hypergeometric import interval


def chance(k: int, of_kind: int, n: int, total: int) -> float:
    """That n of `total`, `of_kind` of which are of a kind, hold k of these."""
    return comb(of_kind, k) * comb(total - of_kind, n - k) / comb(total, n)


@pytest.mark.parametrize("total", [1, 2, 7, 20])
def test_it_covers_and_is_what_counting_gives(total: int) -> None:
    for n in range(1, total + 1):
        found = {k: interval(k, n, total) for k in range(n + 1)}
        for truth in range(total + 1):
            chances = [chance(k, truth, n, total) for k in range(n + 1)]
            covered = sum(
                p for k, p in enumerate(chances) if found[k][0] <= truth <= found[k][1]
            )
            assert covered >= 0.95 - 1e-12
            for k in range(n + 1):
                tails = sum(chances[k:]), sum(chances[: k + 1])
                if abs(min(tails) - 0.025) > 1e-9:
                    inside = found[k][0] <= truth <= found[k][1]
                    assert inside == (min(tails) > 0.025)


def test_known_cases() -> None:
    assert interval(0, 10, 10) == (0, 0)
    assert interval(3, 10, 10) == (3, 3)
    assert interval(0, 100, 8000)[0] == 0
    assert 250 < interval(0, 100, 8000)[1] < 300  # near 1 - 0.025 ** (1 / 100)
    assert interval(0, 0, 5) == (0, 5)
    assert interval(0, 0, 0) == (0, 0)
    with pytest.raises(ValueError, match="3 of 2"):
        interval(3, 2, 5)
