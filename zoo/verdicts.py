"""From outcomes to verdicts to figures: the only place where robustness is counted.

The evaluation uses it to state figures, verification to state them again, comparison
and ranking to tell which examples stand behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import eq

import numpy as np
import numpy.typing as npt

from zoo.records import (
    AttackRun,
    Examples,
    Outcome,
    PerClass,
    Proportion,
    Verdict,
)

UNSURE = (Outcome.UNDECIDED, Outcome.REFUSED)
_VERDICTS = tuple(Verdict)

Column = npt.NDArray[np.bool_]
"""(n,): one truth per example."""


def verdicts(examples: Examples) -> list[Verdict]:
    """What the battery came to on each example, from the other columns.

    One counted adversarial is enough to be fooled. Without one, a single attack whose
    proposal could not be decided, or broke the threat model, leaves the example
    undecided: an attack that went wrong is no evidence of robustness.
    """
    found = _decided(examples, examples.outcomes.values())
    return [_VERDICTS[code] for code in found.tolist()]


def correct(examples: Examples) -> Column:
    """Which are classified correctly without attack."""
    return np.equal(_integers(examples.label), _integers(examples.clean_prediction))


def robust(examples: Examples) -> Column:
    """Which were not fooled by any attack, as their verdicts say."""
    return _among(examples.verdict, Verdict.ROBUST)


def robust_against(
    examples: Examples, names: Sequence[str], sequence: Sequence[bool], at: int
) -> Column:
    """Which held against attack number `at` alone or, in a sequence, so far.

    Args:
        examples: With a column of outcomes for each attack.
        names: Of the attacks, in the order in which they ran.
        sequence: Whether each ran on the survivors of those before it.
        at: Position in `names`.
    """
    counted = [
        names[i] for i in range(at + 1) if i == at or (sequence[at] and sequence[i])
    ]
    found = _decided(examples, (examples.outcomes[name] for name in counted))
    return np.equal(found, _VERDICTS.index(Verdict.ROBUST))


def standing(examples: Examples, names: Iterable[str]) -> Column:
    """Which are correct and were not fooled by any attack of these names."""
    found = _decided(examples, (examples.outcomes[name] for name in names))
    return np.equal(found, _VERDICTS.index(Verdict.ROBUST))


def attacked(examples: Examples, name: str) -> Column:
    """Which the attack of that name was tried on."""
    return ~_among(examples.outcomes[name], Outcome.SKIPPED)


def attackable(
    examples: Examples, names: Sequence[str], sequence: Sequence[bool], at: int
) -> Column:
    """Which attack number `at` has to be tried on; arguments as `robust_against`.

    Those that are correct without attack and, in a sequence, not fooled by the attacks
    of the sequence before it.
    """
    standing = correct(examples)
    for before in range(at):
        if sequence[at] and sequence[before]:
            standing &= ~_among(examples.outcomes[names[before]], Outcome.FOOLED)
    return standing


def clean_accuracy(examples: Examples) -> Proportion:
    """Share classified correctly without attack."""
    return share(correct(examples))


def robust_accuracy(examples: Examples) -> Proportion:
    """Share that is correct and was not fooled by any attack: the figure."""
    return share(robust(examples))


def mean_per_class(examples: Examples) -> PerClass:
    """Clean and robust accuracy within each class that has images, averaged."""
    labels = _integers(examples.label)
    count = np.bincount(labels)
    there = count > 0

    def mean(column: Column) -> float:
        share = np.bincount(labels, weights=column)[there] / count[there]
        return float(np.clip(share.mean(), 0.0, 1.0))

    return PerClass(
        clean=mean(correct(examples)),
        robust=mean(robust(examples)),
        classes=int(there.sum()),
    )


def attack_robust(examples: Examples, runs: Sequence[AttackRun], at: int) -> Proportion:
    """Robust accuracy under attack number `at` alone or, in a sequence, so far."""
    return robust_under(
        examples, [run.name for run in runs], [run.sequence for run in runs], at
    )


def robust_under(
    examples: Examples, names: Sequence[str], sequence: Sequence[bool], at: int
) -> Proportion:
    """As `attack_robust`, from names and flags."""
    return share(robust_against(examples, names, sequence, at))


def share(column: Column) -> Proportion:
    """The true ones among all, with the interval; raises `ValueError` if empty."""
    return Proportion.of(int(column.sum()), len(column))


def _decided(
    examples: Examples, columns: Iterable[Sequence[Outcome]]
) -> npt.NDArray[np.int64]:
    """Positions in `Verdict`: what attacks with these outcomes came to."""
    label = _integers(examples.label)
    clean = _integers(examples.clean_prediction)
    fooled, unsure = np.zeros((2, len(label)), dtype=bool)
    for column in columns:
        fooled |= _among(column, Outcome.FOOLED)
        unsure |= _among(column, *UNSURE)
    rules = [
        (clean < 0, Verdict.UNDECIDED),
        (clean != label, Verdict.MISCLASSIFIED),
        (fooled, Verdict.FOOLED),
        (unsure, Verdict.UNDECIDED),
    ]
    return np.select(
        [applies for applies, _ in rules],
        [_VERDICTS.index(verdict) for _, verdict in rules],
        _VERDICTS.index(Verdict.ROBUST),
    )


def _integers(column: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.fromiter(column, np.int64, len(column))


def _among(column: Sequence[str], *wanted: str) -> Column:
    found = np.zeros(len(column), dtype=np.bool_)
    for value in wanted:
        same = bytes(map(eq, column, repeat(value)))  # no loop in Python
        found |= np.frombuffer(same, dtype=np.bool_)
    return found
