"""From outcomes to verdicts to figures: the only place where robustness is counted.

The evaluation uses it to state figures, verification to state them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zoo.records import AttackRun, Examples, Outcome, Proportion, Verdict

UNSURE = (Outcome.UNDECIDED, Outcome.REFUSED)


def verdict(label: int, clean_prediction: int, outcomes: Iterable[Outcome]) -> Verdict:
    """What a battery came to on one example.

    One counted adversarial is enough to be fooled. Without one, a single attack whose
    proposal could not be decided, or broke the threat model, leaves the example
    undecided: an attack that went wrong is no evidence of robustness.

    Args:
        label: True class.
        clean_prediction: Predicted class without attack; -1 if undecided.
        outcomes: One per attack.
    """
    found = set(outcomes)
    if clean_prediction < 0:
        return Verdict.UNDECIDED
    if clean_prediction != label:
        return Verdict.MISCLASSIFIED
    if Outcome.FOOLED in found:
        return Verdict.FOOLED
    if found & set(UNSURE):
        return Verdict.UNDECIDED
    return Verdict.ROBUST


def verdicts(examples: Examples) -> list[Verdict]:
    """Verdicts recomputed from the other columns."""
    columns = list(examples.outcomes.values())
    return [
        verdict(label, clean, (column[row] for column in columns))
        for row, (label, clean) in enumerate(
            zip(examples.label, examples.clean_prediction, strict=True)
        )
    ]


def clean_accuracy(examples: Examples) -> Proportion:
    """Share classified correctly without attack."""
    pairs = zip(examples.label, examples.clean_prediction, strict=True)
    return Proportion.of(sum(y == p for y, p in pairs), len(examples.label))


def robust_accuracy(examples: Examples) -> Proportion:
    """Share that is correct and was not fooled by any attack: the figure."""
    robust = sum(v is Verdict.ROBUST for v in examples.verdict)
    return Proportion.of(robust, len(examples.verdict))


def attack_robust(examples: Examples, runs: Sequence[AttackRun], at: int) -> Proportion:
    """Robust accuracy under attack number `at` alone or, in a sequence, so far."""
    return robust_under(
        examples, [run.name for run in runs], [run.sequence for run in runs], at
    )


def robust_under(
    examples: Examples, names: Sequence[str], sequence: Sequence[bool], at: int
) -> Proportion:
    """As `attack_robust`, from names and flags."""
    counted = [
        names[i] for i in range(at + 1) if i == at or (sequence[at] and sequence[i])
    ]
    columns = [examples.outcomes[name] for name in counted]
    robust = sum(
        verdict(label, clean, (column[row] for column in columns)) is Verdict.ROBUST
        for row, (label, clean) in enumerate(
            zip(examples.label, examples.clean_prediction, strict=True)
        )
    )
    return Proportion.of(robust, len(examples.label))
