"""The sides of the squares that the Square attack tries, query by query.

Source: Andriushchenko et al. 2020, arXiv 1912.00049, with the schedule that AutoAttack
(arXiv 2003.01690) uses for 5000 queries.
"""

from __future__ import annotations

import math

P_INIT = 0.8
_SCHEDULE = ((10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64))
"""(last query, divisor of P_INIT); not rescaled to the number of queries."""


def share_of_pixels(query: int) -> float:
    """p: the share of pixels that the square of a query covers."""
    for last, divisor in _SCHEDULE:
        if query <= last:
            return P_INIT / divisor
    return P_INIT / (128 if query <= 6000 else 256 if query <= 8000 else 512)


def sides(queries: int, height: int, width: int, smallest: int) -> list[int]:
    """Side of the square of each query; made odd if it must be at least 3."""
    found = []
    for query in range(queries):
        side = round(math.sqrt(share_of_pixels(query) * height * width))
        side = max(side, smallest)
        if smallest == 3 and side % 2 == 0:
            side += 1
        found.append(min(side, height, width))
    return found
