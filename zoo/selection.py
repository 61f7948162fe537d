"""Which images of a split an evaluation may choose without choosing its figure.

The whole split, its first n images, or evenly spaced ones where it is sorted by class:
what `--limit` takes. Anything else is a selection of somebody's, and its figure is not
compared with others. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SELECTED = "selected images"
"""What is said of a result on any others."""

Integers = npt.NDArray[np.int64]


def spaced(total: int, count: int) -> Integers:
    """`count` positions in a split of `total` images, the first and last among them."""
    return np.linspace(0, total - 1, count).round().astype(np.int64)


def ascending(labels: Sequence[int]) -> bool:
    """Whether images come sorted by class."""
    return bool((np.diff(labels) >= 0).all())


def in_turn(labels: Sequence[int]) -> Integers:
    """All positions: the first image of each class, then the second of each, ..."""
    y = np.asarray(labels, dtype=np.int64)
    by_class = np.argsort(y, kind="stable")
    starts = np.searchsorted(y[by_class], y[by_class])
    turn = np.empty(len(y), dtype=np.int64)
    turn[by_class] = np.arange(len(y)) - starts
    return np.lexsort((y, turn))


def as_limit(index: Sequence[int], labels: Sequence[int]) -> bool:
    """Whether these may be what a limit takes, as far as they themselves tell.

    Args:
        index: Positions in the split, in the order of evaluation.
        labels: Of those images.
    """
    found = np.asarray(index, dtype=np.int64)
    if np.array_equal(found, np.arange(len(found))):
        return True
    total = int(found[-1]) + 1
    is_sorted = ascending(labels) and len(found) <= total
    return is_sorted and np.array_equal(found, spaced(total, len(found)))
