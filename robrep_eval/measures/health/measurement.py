"""Health checks and the curve over radii, which look at the same few images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from robrep_eval.measures.base import Finished, Measurement
from robrep_eval.measures.health import Level, Subject, check_health
from robrep_eval.measures.health.attack import STEPS, eps_curve
from robrep_eval.measures.health.subject import MAX_STANDING
from zoo.affordable import HEALTH_IMAGES, affordable
from zoo.errors import UserError, nearest
from zoo.measurements import EpsCurve, HealthReport, Status
from zoo.records import Result

LEVELS = ("none", "default", "full")
MAX_IMAGES = HEALTH_IMAGES
"""Taken from the evaluated set as a limit takes them; fewer where the battery was
short, see `zoo.affordable`, unless another number is asked for."""


def subject(finished: Finished, images: int) -> Subject:
    """What both look at, made once: they share attacks as well."""
    key = f"health of {images}"
    if key not in finished.shared:
        most = affordable(finished.result, finished.data.shape)
        count = most.health if images == MAX_IMAGES else images
        some = finished.data.take(min(images, count))  # of all classes
        claims = finished.claims()
        finished.shared[key] = Subject(
            classifier=finished.classifier,
            x=some.images(slice(None)),
            y=some.labels,
            ids=some.positions.tolist(),
            threat=finished.result.threat,
            seed=finished.result.seed,
            examples=finished.result.examples,
            whole=finished.data,
            adversarials=claims.images,
            origins=finished.data.subset(claims.positions),
            owners=claims.positions,
            layout=finished.layout,
            standing=min(MAX_STANDING, most.standing),
        )
    found: Subject = finished.shared[key]
    return found


@dataclass(frozen=True, kw_only=True)
class HealthChecks(Measurement[HealthReport]):
    """Is this evaluation worth anything?"""

    level: Level = "default"
    images: int = MAX_IMAGES

    name: ClassVar[str] = "health"
    record: ClassVar[type[HealthReport]] = HealthReport
    shares: ClassVar[str] = "attacks on the same few images"

    def __post_init__(self) -> None:
        if self.level not in LEVELS[1:]:
            raise UserError(
                f"unknown level '{self.level}' of health checks; "
                f"{nearest(self.level, LEVELS)}"
            )

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self | None:
        """--health LEVEL, in any case but "none"."""
        return None if options["health"] == "none" else cls(level=options["health"])

    def noted(self, finished: Finished) -> dict[str, Any]:
        """The seed of the run draws for the checks too."""
        return {**super().noted(finished), "seed": finished.result.seed}

    def said(self, record: HealthReport, finished: Finished) -> dict[str, Any]:
        """Every report states its level."""
        return {**super().said(record, finished), "level": record.level}

    def has(self, record: HealthReport, finished: Finished) -> bool:
        """The full set holds the default one."""
        wanted = replace(self, level="full") if record.level == "full" else self
        return Measurement.has(wanted, record, finished)

    def make(
        self, finished: Finished, on_progress: Callable[[float], None]
    ) -> HealthReport:
        """One flag for each check."""
        return check_health(subject(finished, self.images), self.level, on_progress)

    @classmethod
    def told(cls, record: HealthReport, result: Result) -> str:
        """How many pass, and each that does not."""
        others = [flag for flag in record.flags if flag.status is not Status.PASS]
        passed = len(record.flags) - len(others)
        lines = [f"Health: {passed} of {len(record.flags)} checks pass."]
        lines += [f"  {f.status.value}: {f.check}: {f.summary}" for f in others]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class RadiusCurve(Measurement[EpsCurve]):
    """Accuracy against eps, from attacks that the health checks make anyway."""

    images: int = MAX_IMAGES

    name: ClassVar[str] = "eps_curve"
    record: ClassVar[type[EpsCurve]] = EpsCurve
    shares: ClassVar[str] = "attacks on the same few images"

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self | None:
        """Beside every report of the health checks."""
        return None if options["health"] == "none" else cls()

    def noted(self, finished: Finished) -> dict[str, Any]:
        """The attack with its steps is the same for all."""
        seed = finished.result.seed
        return {**super().noted(finished), "steps": STEPS, "seed": seed}

    def make(
        self, finished: Finished, on_progress: Callable[[float], None]
    ) -> EpsCurve:
        """PGD at several radii, each attacked anew."""
        return eps_curve(subject(finished, self.images))
