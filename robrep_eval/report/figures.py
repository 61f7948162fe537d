"""A figure of the page: a drawing, its key and what must be known to read it."""

from __future__ import annotations

from dataclasses import dataclass, field

from robrep_eval.report.svg import Drawing
from zoo.records import Proportion


@dataclass(frozen=True, kw_only=True)
class Key:
    """One entry beneath a drawing."""

    kind: str
    """Of the marks that it explains."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with its key and a note."""

    drawing: Drawing
    keys: list[Key] = field(default_factory=list)
    note: str = ""


def percent(share: float) -> str:
    """As everywhere on the page: one decimal."""
    return f"{100 * share:.1f}%"


def nats(loss: float) -> str:
    """A loss with three significant digits."""
    return f"{loss:.3g}" if loss < 1000 else f"{loss:,.0f}"


def interval(figure: Proportion) -> str:
    """The 95% interval in %, in brackets."""
    return f"[{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
