"""Who is better, and who is merely not shown to be worse.

Two robust accuracies measured on the same images are compared example by example, by
the exact test of McNemar (1947); on different images, by Fisher's exact test (1922).
A difference that such a test cannot tell from chance at 5% is a tie. No correction is
made for the number of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.datasets.registry import FOLDER
from zoo.records import Result, Verdict

LEVEL = 0.05


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


def compare(first: Result, second: Result) -> Comparison:
    """Tests whether two robust accuracies differ.

    Args:
        first: A result.
        second: Another, on the same dataset and under the same threat model.
    """
    from scipy.stats import binomtest, fisher_exact

    pairs = _paired(first, second)
    if pairs:
        only_first = sum(a and not b for a, b in pairs)
        only_second = sum(b and not a for a, b in pairs)
        differing = only_first + only_second
        p = binomtest(only_first, differing, 0.5).pvalue if differing else 1.0
        return Comparison(float(p), True, len(pairs))
    table = [[r.robust.k, r.robust.n - r.robust.k] for r in (first, second)]
    return Comparison(float(fisher_exact(table).pvalue), False, 0)


def _paired(first: Result, second: Result) -> list[tuple[bool, bool]]:
    """Robust or not, for each image that both were measured on."""
    if first.dataset.name.startswith(FOLDER) and (
        first.dataset.sha256 != second.dataset.sha256
    ):
        return []  # two folders of the same name need not hold the same images
    known = {
        (index, label): verdict is Verdict.ROBUST
        for index, label, verdict in _rows(first)
    }
    return [
        (known[index, label], verdict is Verdict.ROBUST)
        for index, label, verdict in _rows(second)
        if (index, label) in known
    ]


def _rows(result: Result) -> zip[tuple[int, int, Verdict]]:
    examples = result.examples
    return zip(examples.index, examples.label, examples.verdict, strict=True)


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
    for i, first in enumerate(results):
        for j in range(i):
            second = results[j]
            if compare(first, second).tie:
                ties[i].append(j)
                ties[j].append(i)
            else:
                ahead = first.robust.value > second.robust.value
                better[j if ahead else i] += 1
    return [
        Place(1 + count, tuple(sorted(tied)))
        for count, tied in zip(better, ties, strict=True)
    ]
