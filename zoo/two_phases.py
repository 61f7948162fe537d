"""All images by one battery, some of those that it left by a stronger one.

The cheap battery decides which images stand, before anything is drawn. Of those a
sample is drawn without replacement, and the stronger battery attacks it. Whether an
image would fall to that is fixed, as its draws belong to the image alone; so how many
of the sample fall is hypergeometric, and the interval for all that stand is exact
(`zoo.hypergeometric`; docs/concepts/autoattack.md has the proof). Imports no torch.
"""

from __future__ import annotations

import re

import numpy as np

from zoo import hypergeometric
from zoo.records import Audit, Examples, Result, Verdict
from zoo.verdicts import Column, standing, verdicts

WORD = re.compile("audit:([1-9][0-9]{0,8})")
"""The battery "fast,audit:500" is `fast` on all images and `STRONGER` on 500."""
STRONGER = "standard"
"""What the sample is attacked by."""
_STREAM = 0x617564
"""Keeps the draw apart from other draws by the same seed."""


def count_of(battery: str) -> int | None:
    """How many images the battery of that name audits; None: none.

    Only as its last word, after others, and without leading zeros.
    """
    before, _, last = battery.rpartition(",")
    found = WORD.fullmatch(last)
    return int(found[1]) if before and found else None


def draw(examples: Examples, before: list[str], count: int, seed: int) -> list[int]:
    """Rows to be audited, ascending: any `count` of those left are as likely.

    Args:
        examples: With the outcomes of the attacks on all images.
        before: Names of those attacks.
        count: How many; all if there are fewer.
        seed: Of the run.
    """
    left = np.flatnonzero(standing(examples, before))
    chosen = np.random.default_rng((_STREAM, seed)).permutation(len(left))[:count]
    return sorted(left[chosen].tolist())


def recount(
    examples: Examples, before: list[str], audited: list[str], count: int, seed: int
) -> Audit:
    """What an audit came to.

    Args:
        examples: With the outcomes of all attacks.
        before: Names of the attacks on all images.
        audited: Of those on the sample.
        count: Images asked for.
        seed: Of the run.
    """
    left = int(standing(examples, before).sum())
    rows = draw(examples, before, count, seed)
    found = verdicts(examples)
    fell = sum(found[row] is not Verdict.ROBUST for row in rows)
    low, high = hypergeometric.interval(fell, len(rows), left)
    return Audit(
        attacks=audited,
        seed=seed,
        standing=left,
        drawn=len(rows),
        fell=fell,
        robust_low=left - high,
        robust_high=left - low,
    )


def split(result: Result) -> tuple[list[str], list[str]]:
    """Names of the attacks on all images, and of those on the sample."""
    names = [run.name for run in result.attacks]
    mine = set(result.audit.attacks) if result.audit else set()
    return [n for n in names if n not in mine], [n for n in names if n in mine]


def sample(result: Result) -> Column:
    """(n,): which images are those of the audit."""
    chosen = np.zeros(len(result.examples.index), dtype=np.bool_)
    if result.audit:
        before, _ = split(result)
        audit = result.audit
        chosen[draw(result.examples, before, audit.drawn, audit.seed)] = True
    return chosen


def fault(result: Result) -> str | None:
    """What does not follow from battery, seed and outcomes; None: all does."""
    count, audit = count_of(result.battery), result.audit
    if (count is None) != (audit is None):
        return f"battery '{result.battery}' and the record of an audit disagree"
    if count is None or audit is None:
        return None
    before, audited = split(result)
    if [run.name for run in result.attacks] != [*before, *audited]:
        return "the audit's attacks are not the last ones"
    meant = recount(result.examples, before, audited, count, audit.seed)
    return None if meant == audit else f"audit: stated {audit}, recomputed {meant}"


def line(result: Result) -> str | None:
    """The audit in one sentence."""
    audit = result.audit
    if audit is None:
        return None
    first = result.battery.rpartition(",")[0]
    n = result.dataset.n
    low, high = 100 * audit.robust_low / n, 100 * audit.robust_high / n
    return (
        f"under {first} on {n:,}; audit of {audit.drawn:,} of {audit.standing:,} "
        f"survivors by {STRONGER}: {audit.fell} fell; robust accuracy {low:.1f} to "
        f"{high:.1f}"
    )
