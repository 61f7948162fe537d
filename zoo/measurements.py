"""What a result may hold beside the attacks: typed, each under its own name.

They are `Result.measurements`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from zoo.feature_metric import PLAIN
from zoo.schema import Column, Proportion, Record, validated

R = TypeVar("R", bound=Record)


def _same_length(record: R, *columns: Sequence[object]) -> R:
    if len({len(column) for column in columns}) > 1:
        raise ValueError("the columns of examples differ in length")
    return record


class Limit(StrEnum):
    """What keeps one example from passing the margin test."""

    NONE = "none"
    """It passes."""
    FIT = "fit"
    """It is misclassified when clean."""
    HEAD = "head"
    """The displacement crosses this head's boundary, yet stays on its own side of
    the middle to the nearest feature of another class: another head could hold it."""
    ENCODER = "encoder"
    """The displacement passes that middle: no head that also serves the other class
    equally can hold it."""


class Measured(Record):
    """Base of what a measurement comes to."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """What it was made with; empty in records of the first robrep, except those of
    the bound and of the label-free measures."""

    @property
    def feature_metric(self) -> str:
        """Units of lengths in feature space; plain in records that note none."""
        return str(self.settings.get("metric", PLAIN))


class BoundEstimate(Measured):
    """The bound of `zoo.bound`. R comes from attacks: no proof."""

    clean_loss: float
    """Mean cross-entropy, nats."""
    adversarial_loss: float
    """Mean cross-entropy of the worst image found for each example."""
    b1: float
    """Mean of clean loss + C_y R."""
    b2: float
    """Mean of the tighter form; never above b1."""
    head_constant: float
    """Mean C_y."""
    displacement: float
    """Mean R: how far features were moved, L2."""
    relative_displacement: float
    """Mean R over the median distance of two clean features: free of scale."""
    tightness: float
    """adversarial_loss / b2: 1 means that nothing is lost."""
    estimated_robust: Proportion
    """Correct and passing the margin test with the estimated R."""
    limits: dict[Limit, int]
    """Number of examples by what limits them."""
    limited_by: Limit
    """The most frequent limit among those that do not pass; "none" if all pass."""
    strongest: dict[str, int]
    """For how many examples each attack gave the largest displacement."""
    examples: Annotated[dict[str, list[float]], Column.REAL]
    """Per example: clean_loss, adversarial_loss, b1, b2, head_constant, displacement,
    margin (distance of the feature to the nearest decision boundary)."""

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        return _same_length(self, *self.examples.values())


class Radii(Record):
    """Certified accuracy against radius."""

    radius: list[float]
    certified: list[Proportion]


class SmoothingCertificate(Measured):
    """Randomised smoothing: a proof about the SMOOTHED classifier, not its base."""

    norm: Literal["L2"] = "L2"
    sigma: float
    n0: int
    n: int
    alpha: float
    """Chance that one certificate is wrong."""
    probe: str
    """Which head was smoothed, e.g. "fitted on features of noisy images"."""
    smoothed: Proportion
    """Correct predictions of the smoothed classifier (an abstention is not correct)."""
    abstained: int
    curve: Radii
    average_radius: float
    """Mean over ALL examples, wrong and abstained ones counting 0 (MACER)."""
    index: Annotated[list[int], Column.INTEGER]
    """Position of each example in the evaluated set."""
    prediction: Annotated[list[int], Column.INTEGER]
    """-1: abstained."""
    radius: Annotated[list[float], Column.REAL]
    """0 where abstained."""

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        return _same_length(self, self.index, self.prediction, self.radius)


class LipschitzCertificate(Measured):
    """Clean margin over head constant against the encoder's Lipschitz constant."""

    norm: str
    constant: float
    """Upper bound on ||g(x) - g(x')||_2 / ||x - x'|| in that norm, from the weights."""
    method: str
    certified: Proportion
    """At the eps of the result: no attack inside the ball changes the prediction."""
    curve: Radii
    radius: Annotated[list[float], Column.REAL]
    """Per example, 0 where misclassified."""


class LabelFree(Measured):
    """Robustness of the encoder without any probe (Petrov et al., 2210.04076)."""

    universal_quantile: float
    """Median over images of the share of clean pairs closer than the attack moved;
    lower is more robust."""
    remaining_distance_ratio: float
    """Median of how much of the distance to a target image a targeted attack leaves;
    higher is more robust."""
    breakaway_risk: float
    """Chance that another clean image is nearer to the attacked one than its own."""
    nearest_top1: float
    """Share of attacked images whose nearest clean image is their own."""
    nearest_top5: float
    overlap_risk: float
    """Share of pairs where two images attacked towards each other pass each other."""
    margin: float
    """Median margin ratio of those pairs; larger is more robust."""
    impersonation: float | None = None
    """Share of targeted attacks in feature space that make a probe predict the
    target's class; null without a probe."""
    n: int


class Status(StrEnum):
    """Of one health check."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


class Flag(Record):
    """One health check: a status with its evidence."""

    check: str
    status: Status
    summary: str
    """One sentence: what was found and, unless it passed, what to do."""
    value: float | None = None
    """The number that was compared."""
    limit: float | None = None
    """What it was compared with."""
    examples: list[int] = Field(default_factory=list)
    """Positions in the published split of up to 20 examples that show it."""

    @field_validator("value")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        """A number that is none (logits not finite) is absent."""
        return value if value is not None and math.isfinite(value) else None


class HealthReport(Measured):
    """All checks of one run."""

    level: Literal["default", "full"]
    n: int
    """Examples that the checks used."""
    flags: list[Flag]

    @property
    def worst(self) -> Status:
        """fail before warn before pass."""
        found = {flag.status for flag in self.flags}
        return next(s for s in (Status.FAIL, Status.WARN, Status.PASS) if s in found)

    def flag(self, check: str) -> Flag:
        """The flag of one check; raises `KeyError`."""
        return {flag.check: flag for flag in self.flags}[check]


class CorruptionCell(Record):
    """Accuracy under one corruption at one severity."""

    corruption: str
    severity: int
    accuracy: Proportion


class Corruptions(Measured):
    """Accuracy under common corruptions; which images these were is always said."""

    source: str
    """"official CIFAR-10-C arrays" or "generated by imagecorruptions-imaug 1.1.5";
    never compare one with the other."""
    official: bool
    mean: float
    """Mean of all cells."""
    cells: list[CorruptionCell]


EPS_FACTORS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Radii of an `EpsCurve` as multiples of the result's eps."""


class EpsPoint(Record):
    """Robust accuracy at one radius."""

    eps: float
    robust: Proportion


class EpsCurve(Measured):
    """Accuracy against eps by one fixed attack, for the shape only."""

    attack: str
    points: list[EpsPoint]


class Measurements(Record):
    """All further measurements of a result; null where not asked for."""

    health: HealthReport | None = None
    bound: BoundEstimate | None = None
    smoothing: SmoothingCertificate | None = None
    lipschitz: LipschitzCertificate | None = None
    label_free: LabelFree | None = None
    corruptions: Corruptions | None = None
    eps_curve: EpsCurve | None = None
    others: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Those of other packages, by name."""

    @classmethod
    def of(cls, result: HasMeasurements) -> Measurements:
        """Those of a result."""
        return result.measurements


class HasMeasurements(Protocol):
    """What holds measurements: a `zoo.records.Result`."""

    @property
    def measurements(self) -> Measurements: ...


M = TypeVar("M", bound=Measured)


def measurement(result: HasMeasurements, name: str, kind: type[M]) -> M | None:
    """One measurement by name, which another package may have added; None if absent.

    Raises:
        UserError: it cannot be read as such a record.
    """
    found = result.measurements
    if name in Measurements.model_fields:
        record = getattr(found, name)
        assert record is None or isinstance(record, kind)
        return record
    content = found.others.get(name)
    if content is None:
        return None
    return validated(content, kind, f"the measurement '{name}' of the result")
