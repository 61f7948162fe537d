"""Clean against robust accuracy, as coordinates for an SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.board.leaderboard import Row
from zoo.pages.axis import STEP, Axis
from zoo.records import Proportion

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 12, 46
MARKS = 6
"""Shapes and colours in the style sheet; further groups start over."""


@dataclass(frozen=True)
class Point:
    """One entry."""

    at: int
    """Position of its row in the table."""
    label: str
    group: int
    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float


@dataclass(frozen=True)
class Plot:
    """All that the template draws."""

    width: int
    height: int
    x: Axis
    y: Axis
    points: list[Point]
    groups: list[str]


def scatter(rows: Sequence[Row]) -> Plot:
    """Places every row; groups are those within which rows are ranked."""
    x = _axis([row.clean for row in rows], LEFT, WIDTH - RIGHT)
    y = _axis([row.robust for row in rows], HEIGHT - BOTTOM, TOP)
    groups = list(dict.fromkeys(row.group for row in rows))
    points = [
        Point(
            at=at,
            label=f"{row.card.name}: clean {row.clean}, robust {row.robust}",
            group=groups.index(row.group) % MARKS,
            x=x(row.clean.value),
            y=y(row.robust.value),
            x_low=x(row.clean.low),
            x_high=x(row.clean.high),
            y_low=y(row.robust.low),
            y_high=y(row.robust.high),
        )
        for at, row in enumerate(rows)
    ]
    return Plot(WIDTH, HEIGHT, x, y, points, groups)


def _axis(figures: Sequence[Proportion], start: float, end: float) -> Axis:
    """Whole tens around all intervals."""
    low = min((figure.low for figure in figures), default=0.0)
    high = max((figure.high for figure in figures), default=1.0)
    low = math.floor(low / STEP + 1e-9) * STEP
    high = math.ceil(high / STEP - 1e-9) * STEP
    return Axis(low, max(high, low + STEP), start, end)
