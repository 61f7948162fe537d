"""Two classifiers on the same images: is the difference between them real?

Both met the same images, so the examples where exactly one of them holds decide
(McNemar 1947): with b and c such examples and no true difference, b is
binomial(b + c, 1/2). Comparing two separate intervals would throw that away.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from zoo.records import Proportion, Record
from zoo.verdicts import Column, share

LEVEL = 0.05
"""A p-value below it tells two results apart."""
Z95 = 1.959963984540054
"""97.5% point of the standard normal distribution."""

Counts = npt.NDArray[np.int64]


class PairedDifference(Record):
    """Accuracy of B minus accuracy of A on shared examples."""

    name: str
    """"clean", "robust" (the worst case over all attacks), or an attack."""
    a: Proportion
    b: Proportion
    only_a: int
    """Examples that A holds and B does not."""
    only_b: int
    difference: float
    """B - A, in [-1, 1]."""
    low: float
    """Of the 95% interval (Newcombe 1998, method 10)."""
    high: float
    p_value: float
    """Exact, two-sided (McNemar); not corrected for the number of rows."""


def paired_difference(name: str, a: Column, b: Column) -> PairedDifference:
    """The row of two columns over the same examples, of which there is one at least."""
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    low, high = paired_interval(both, only_a, only_b, neither)
    return PairedDifference(
        name=name,
        a=share(a),
        b=share(b),
        only_a=only_a,
        only_b=only_b,
        difference=(only_b - only_a) / len(a),
        low=low,
        high=high,
        p_value=mcnemar(only_a, only_b),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value from the two kinds of disagreement."""
    from scipy.stats import binomtest

    total = only_a + only_b
    return float(binomtest(only_a, total).pvalue) if total else 1.0


def better(only_a: Counts, only_b: Counts) -> npt.NDArray[np.int8]:
    """Decides many exact McNemar tests at once, each at `LEVEL`.

    The p-value is twice the lower tail of the smaller count, so it is enough to look
    up the quantile of that tail for each total.

    Args:
        only_a: How many examples A alone holds, of any shape.
        only_b: The same of B.

    Returns:
        1 where A is shown to be better, -1 where B is, 0 where neither is.
    """
    total = only_a + only_b
    smallest = _quantiles(int(total.max(initial=0)))[total]
    apart = np.minimum(only_a, only_b) < smallest
    return np.where(apart, np.sign(only_a - only_b), 0).astype(np.int8)


@lru_cache(maxsize=8)
def _quantiles(largest: int) -> Counts:
    """For each total up to `largest`: the least count whose tail reaches LEVEL / 2."""
    from scipy.stats import binom

    found = binom.ppf(LEVEL / 2, np.arange(largest + 1), 0.5)
    return np.asarray(found, dtype=np.int64)


@lru_cache(maxsize=1 << 16)
def fisher(k_a: int, n_a: int, k_b: int, n_b: int) -> float:
    """Fisher's exact two-sided p-value (1922), for samples that share no example.

    Args:
        k_a: Examples of its own that A holds, of `n_a`.
        n_a: All examples of A.
        k_b: The same of B.
        n_b: The same of B.
    """
    from scipy.stats import fisher_exact

    return float(fisher_exact([[k_a, n_a - k_a], [k_b, n_b - k_b]]).pvalue)


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion (1927)."""
    p, z2 = k / n, Z95**2
    center = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return center - half, center + half


def paired_interval(
    both: int, only_a: int, only_b: int, neither: int
) -> tuple[float, float]:
    """95% interval of B - A from paired outcomes.

    Newcombe 1998 (Statistics in Medicine 17, 2635-2650), method 10: the two Wilson
    intervals combined, with their correlation phi, continuity-corrected when positive.
    It does not degenerate when there is little disagreement.

    Args:
        both: Examples that both hold.
        only_a: Held by A alone.
        only_b: Held by B alone.
        neither: Held by none.
    """
    n = both + only_a + only_b + neither
    k_a, k_b = both + only_a, both + only_b
    (low_a, high_a), (low_b, high_b) = wilson(k_a, n), wilson(k_b, n)
    phi = _correlation(both, only_a, only_b, neither)
    p_a, p_b = k_a / n, k_b / n

    def half(d: float, e: float) -> float:
        return math.sqrt(max(0.0, d * d - 2 * phi * d * e + e * e))

    difference = p_b - p_a
    return (
        difference - half(p_b - low_b, high_a - p_a),
        difference + half(high_b - p_b, p_a - low_a),
    )


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Newcombe's phi; 0 where a margin of the table is empty."""
    n = both + only_a + only_b + neither
    product = (
        (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    )
    if not product:
        return 0.0
    top = both * neither - only_a * only_b
    if top > 0:
        return max(top - n / 2, 0) / math.sqrt(product)
    return top / math.sqrt(product)
