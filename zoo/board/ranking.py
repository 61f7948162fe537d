"""Who is better, and who is merely not shown to be worse.

Two robust accuracies measured on the same images are compared example by example, by
the exact test of McNemar (1947); on different images, by Fisher's exact test (1922).
A difference that such a test cannot tell from chance at 5% is a tie. No correction is
made for the number of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.datasets.names import FOLDER
from zoo.records import Result, Verdict

LEVEL = 0.05
MANY = 1 << 20
"""More classes than any dataset has."""


@dataclass(frozen=True)
class Comparison:
    """Two results, of which the first looks at least as robust."""

    p_value: float
    paired: bool
    shared: int
    """Images that both were measured on."""

    @property
    def tie(self) -> bool:
        """Whether chance explains the difference."""
        return self.p_value >= LEVEL


@dataclass(frozen=True)
class _Sample:
    """Which images a result is on, and which of them held."""

    result: Result
    keys: npt.NDArray[np.int64]
    """Ascending; position in the split and label in one number."""
    robust: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, result: Result) -> _Sample:
        examples = result.examples
        labels = np.array(examples.label, dtype=np.int64)
        keys = np.array(examples.index, dtype=np.int64) * MANY + labels
        robust = np.array([v is Verdict.ROBUST for v in examples.verdict], dtype=bool)
        order = keys.argsort()
        return cls(result, keys[order], robust[order])


def compare(first: Result, second: Result) -> Comparison:
    """Tests whether two robust accuracies differ.

    Args:
        first: A result.
        second: Another, on the same dataset and under the same threat model.
    """
    return _compare(_Sample.of(first), _Sample.of(second))


def _compare(first: _Sample, second: _Sample) -> Comparison:
    from scipy.stats import binomtest, fisher_exact

    a, b = _paired(first, second)
    if len(a):
        only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
        differing = only_first + only_second
        p = binomtest(only_first, differing, 0.5).pvalue if differing else 1.0
        return Comparison(float(p), True, len(a))
    figures = (first.result.robust, second.result.robust)
    table = [[figure.k, figure.n - figure.k] for figure in figures]
    return Comparison(float(fisher_exact(table).pvalue), False, 0)


def _paired(
    first: _Sample, second: _Sample
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Robust or not, for each image that both were measured on."""
    data, other = first.result.dataset, second.result.dataset
    if data.name.startswith(FOLDER) and data.sha256 != other.sha256:
        nothing = np.zeros(0, dtype=bool)
        return nothing, nothing  # folders of one name need not hold the same images
    _, a, b = np.intersect1d(
        first.keys, second.keys, assume_unique=True, return_indices=True
    )
    return first.robust[a], second.robust[b]


@dataclass(frozen=True)
class Place:
    """Where one result stands among comparable ones."""

    rank: int
    """1 plus the number of results that are shown to be more robust."""
    ties: tuple[int, ...]
    """Positions of the results that it ties with."""


def places(results: Sequence[Result]) -> list[Place]:
    """Ranks results of one dataset, threat model and battery.

    Two results of equal rank need not tie, and a rank may be shared by results that
    differ from one another, since "not shown to differ" is not transitive.
    """
    better = [0] * len(results)
    ties: list[list[int]] = [[] for _ in results]
    samples = [_Sample.of(result) for result in results]
    for i, first in enumerate(results):
        for j in range(i):
            second = results[j]
            if _compare(samples[i], samples[j]).tie:
                ties[i].append(j)
                ties[j].append(i)
            else:
                ahead = first.robust.value > second.robust.value
                better[j if ahead else i] += 1
    return [
        Place(1 + count, tuple(sorted(tied)))
        for count, tied in zip(better, ties, strict=True)
    ]
