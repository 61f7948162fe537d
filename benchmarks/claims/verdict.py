"""How a claim is put, and what the records say of it.

"Ahead" is superiority: the 95% interval of A - B lies above 0. "No more than M points
behind" is non-inferiority: it lies above -M (Piaggio et al. 2012, doi
10.1001/jama.2012.87802). Nothing is corrected for the number of claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

What = Literal["robust", "clean"]
HEADINGS = ("claim", "A - B, points", "p", "units", "holds")
NUMBERS = frozenset({"A - B, points", "p"})


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the records say."""

    difference: float
    """A - B, in points, as all below."""
    low: float
    high: float
    p_value: float | None
    """Of no difference; None for claims with a margin, of which it says nothing, and
    over seeds."""
    units: str
    holds: bool

    def cells(self, claim: str) -> list[str]:
        """A row, in the order of `HEADINGS`."""
        return [
            claim,
            f"{self.difference:.1f} [{self.low:.1f}, {self.high:.1f}]",
            "" if self.p_value is None else f"{self.p_value:.1g}",
            self.units,
            "yes" if self.holds else "not shown",
        ]


def sentence(a: str, b: str, what: What, margin: float) -> str:
    """ "A is ahead of B when clean"; with a margin "no more than M points behind"."""
    when = "under attack" if what == "robust" else "when clean"
    said = f"is no more than {margin:g} points behind" if margin else "is ahead of"
    return f"{a} {said} {b} {when}"
