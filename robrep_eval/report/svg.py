"""Drawings: a title for those who cannot see them, and marks with coordinates.

The template turns marks into SVG and escapes every text; colours live in the style
sheet, by the mark's `kind`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from zoo.pages.axis import Axis, Tick

WIDTH = 360
"""Of every drawing, in units: about one pixel each on a telephone."""
LEFT, RIGHT, TOP, BOTTOM = 44, 18, 12, 44
"""Room around the plotted area for marks and names of the axes."""

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Line:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    kind: str
    shape: str = "line"


@dataclass(frozen=True)
class Path:
    """A connected line through points."""

    points: Sequence[tuple[float, float]]
    kind: str
    shape: str = "path"

    @property
    def d(self) -> str:
        """The points as SVG wants them."""
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in self.points)


@dataclass(frozen=True)
class Rect:
    """A bar."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    shape: str = "rect"


@dataclass(frozen=True)
class Dot:
    """A point."""

    x: float
    y: float
    r: float
    kind: str
    title: str = ""
    """Shown while the pointer rests on it."""
    shape: str = "dot"


@dataclass(frozen=True)
class Text:
    """A label, its baseline starting, centred or ending at x."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    kind: str = "label"
    turned: bool = False
    """Reads upwards."""
    shape: str = "text"


Mark = Line | Path | Rect | Dot | Text


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One chart."""

    key: str
    """Unique in the page."""
    title: str
    description: str
    """What a reader sees in it, in words and figures."""
    height: float
    marks: Sequence[Mark]
    width: float = WIDTH


def frame(
    x: Axis,
    y: Axis,
    *,
    x_ticks: Sequence[Tick],
    y_ticks: Sequence[Tick],
    x_name: str,
    y_name: str,
) -> list[Mark]:
    """Grid, tick labels and names of two axes; y.start is the lower end."""
    marks: list[Mark] = []
    for tick in y_ticks:
        marks += [
            Line(x.start, tick.at, x.end, tick.at, "grid"),
            Text(x.start - 6, tick.at + 4, tick.label, "end", "tick"),
        ]
    marks += [
        Line(x.start, y.start, x.end, y.start, "base"),
        Text(12, (y.start + y.end) / 2, y_name, "middle", "axis", turned=True),
    ]
    return marks + foot(x, x_ticks, y.start, y.end, x_name)


def foot(
    x: Axis, ticks: Sequence[Tick], bottom: float, top: float, name: str
) -> list[Mark]:
    """A horizontal axis at `bottom`, its lines reaching up to `top`."""
    marks: list[Mark] = []
    for tick in ticks:
        marks += [
            Line(tick.at, bottom, tick.at, top, "grid"),
            Text(tick.at, bottom + 16, tick.label, "middle", "tick"),
        ]
    marks.append(Text((x.start + x.end) / 2, bottom + 36, name, "middle", "axis"))
    return marks


def shorten(text: str, letters: int) -> str:
    """At most so many letters, the rest given up for an ellipsis."""
    return text if len(text) <= letters else text[: letters - 1] + "…"
