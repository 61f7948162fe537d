"""A measurement of one's own, in one file: how many images are bright."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from robrep_eval.measures.base import Finished, Measurement
from zoo.measurements import Measured
from zoo.records import Result


class Bright(Measured):
    """What it comes to."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Brightness(Measurement[Bright]):
    """Images whose mean pixel exceeds a limit."""

    limit: float = 0.5

    name: ClassVar[str] = "brightness"
    record: ClassVar[type[Bright]] = Bright

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self | None:
        limit = options["brighter_than"]
        return None if limit is None else cls(limit=limit)

    def make(self, finished: Finished, on_progress: Callable[[float], None]) -> Bright:
        means = finished.x.flatten(1).mean(dim=1)
        return Bright(count=int((means > self.limit).sum()))

    @classmethod
    def told(cls, record: Bright, result: Result) -> str:
        limit = record.settings["limit"]
        n = result.dataset.n
        return f"{record.count} of {n} images are brighter than {limit}."
