"""Axes of plots: from values to coordinates, and where to put marks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

STEP = 0.1


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """An axis over [low, high], from one end of the picture to the other."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Coordinate of a value, which is moved into the range first."""
        share = (min(max(value, self.low), self.high) - self.low) / (
            self.high - self.low
        )
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, step: float, show: Callable[[float], str]) -> list[Tick]:
        """A mark at every multiple of `step` above the lower end."""
        count = math.floor((self.high - self.low) / step + 1e-9)
        values = [self.low + i * step for i in range(count + 1)]
        return [Tick(self(value), show(value)) for value in values]

    @property
    def percents(self) -> list[Tick]:
        """For shares: one every ten points, or every five if there are few."""
        step = STEP if self.high - self.low > 3.5 * STEP else STEP / 2
        return self.ticks(step, lambda share: f"{100 * share:.0f}")


def nice_step(span: float, about: int = 5) -> float:
    """A step of 1, 2 or 5 times a power of ten that cuts `span` into about so many."""
    power = 10.0 ** math.floor(math.log10(span / about))
    return min(
        (factor * power for factor in (1, 2, 5, 10)),
        key=lambda step: abs(math.log(span / about / step)),
    )
