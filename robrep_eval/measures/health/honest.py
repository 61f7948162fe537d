"""What honest encoders show, and how unlikely a count would be among them.

The encoders are those of the published entries under AutoAttack's `standard`, as they
stood when these rates were measured (`python -m benchmarks.honest`).
"""

from __future__ import annotations

from dataclasses import dataclass

RARE = 1e-3
"""Below this probability a count is not what honest encoders show."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """So many of so many images, over all of those encoders."""

    count: int
    total: int


HIDDEN = Rate(count=5, total=18_273)
"""Images that Square alone fools and that longer white-box attacks do not, of those
that `standard`'s white-box attacks left: 54 entries, at most 2 of 558 in one of them.
Before the longer attacks they are 54, at most 10 of 558."""

LOSSES = SURROGATES = Rate(count=0, total=288)
"""Images that `standard` left and that attacks of another kind fooled: 24 each of
twelve entries."""
DECISIONS = Rate(count=0, total=336)
"""The same under 1,000 questions of every image: 24 each of fourteen entries."""


def allowed(total: int, honest: Rate, rare: float = RARE) -> int:
    """The most images that are not rarer than `rare` at the honest rate.

    By Fisher's exact test, one-sided, so that both counts may be small.

    Args:
        total: Images that could show it.
        honest: What honest encoders show.
        rare: The test's level.
    """
    from scipy.stats import hypergeom

    count = 0
    while count < total:
        everyone, shown = honest.total + total, honest.count + count + 1
        if float(hypergeom.sf(count, everyone, shown, total)) < rare:
            break
        count += 1
    return count
