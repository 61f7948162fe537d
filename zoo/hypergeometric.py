"""What a sample drawn without replacement says about all it was drawn from."""

from __future__ import annotations

LEVEL = 0.05
"""Chance that an interval misses."""


def interval(k: int, n: int, total: int) -> tuple[int, int]:
    """Exact 95% interval of how many of `total` are of a kind.

    Those numbers that an exact one-sided test at 2.5% rejects on neither side, by the
    hypergeometric distribution; it covers the true number at least 95% of the time.

    Args:
        k: How many of the sample are.
        n: Size of the sample, drawn without replacement.
        total: Of which it was drawn.

    Returns:
        The smallest and the largest number.

    Raises:
        ValueError: unless 0 <= k <= n <= total.
    """
    import numpy as np
    from scipy.stats import hypergeom

    if not 0 <= k <= n <= total:
        raise ValueError(f"no sample has {k} of {n} drawn from {total}")
    if n == 0:  # nothing was seen
        return 0, total
    possible = np.arange(k, total - (n - k) + 1)
    as_many = hypergeom.sf(k - 1, total, possible, n)
    as_few = hypergeom.cdf(k, total, possible, n)
    kept = possible[(as_many > LEVEL / 2) & (as_few > LEVEL / 2)]
    return int(kept.min()), int(kept.max())
