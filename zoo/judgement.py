"""What the health checks make of an evaluation, in one word beside its figure.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from zoo.measurements import HealthReport, Status


class Judgement(StrEnum):
    """Of one evaluation; follows from the statuses of its health checks."""

    SOUND = "sound"
    DOUBTFUL = "doubtful"
    """A check warned."""
    BROKEN = "broken"
    """A check failed: the figure says nothing about the model."""
    UNCHECKED = "not checked"


MARKED = (Judgement.DOUBTFUL, Judgement.BROKEN)
"""These stand beside the figure wherever it does, and the entry is not ranked."""


def mark(judgement: Judgement) -> str:
    """What stands behind a figure: " broken", or nothing."""
    return f" {judgement}" if judgement in MARKED else ""


def word_beside(judgement: Judgement) -> str:
    """The same on a leaderboard, where it is also said that nothing was checked."""
    return "" if judgement is Judgement.SOUND else f" {judgement}"


def judge(health: HealthReport | None) -> Judgement:
    """The worst that a check came to."""
    if health is None:
        return Judgement.UNCHECKED
    found = {flag.status for flag in health.flags}
    if Status.FAIL in found:
        return Judgement.BROKEN
    return Judgement.DOUBTFUL if Status.WARN in found else Judgement.SOUND


def worst_of(found: Iterable[Judgement]) -> Judgement:
    """Of several evaluations of which one mean is taken; SOUND if there are none."""
    order = (Judgement.BROKEN, Judgement.DOUBTFUL, Judgement.UNCHECKED, Judgement.SOUND)
    return min(found, key=order.index, default=Judgement.SOUND)


def doubts(report: HealthReport | None) -> list[str] | None:
    """Summaries of checks that did not pass, failed ones first; None if none ran."""
    if report is None:
        return None
    return [
        flag.summary
        for status in (Status.FAIL, Status.WARN)
        for flag in report.flags
        if flag.status is status
    ]
