"""Further measurements of a finished evaluation, each on request and kept once made.

They read a result, its classifier and its adversarials, so a finished run can be
measured further without attacking again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from robrep_eval.measures.base import Finished, Measurement
from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.measurements import Measured, measurement
from zoo.records import Result, with_measurements
from zoo.settings import plain

Measurements = Sequence[Measurement[Any]]


def check(measurements: Measurements, encoder: nn.Module | None, data: Dataset) -> None:
    """Raises `UserError` for what is bound to fail, before any work begins.

    Args:
        measurements: What is asked for.
        encoder: To be probed, or None for a ready-made classifier.
        data: Images to be evaluated.
    """
    if not isinstance(measurements, Sequence) or not all(
        isinstance(one, Measurement) for one in measurements
    ):
        raise UserError(
            "measure takes a tuple of measurements, such as (HealthChecks(),), not "
            f"{measurements!r}"
        )
    names = [one.name for one in measurements]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(
            f"measurement '{min(twice)}' is asked for twice; a result holds one"
        )
    for one in measurements:
        one.check(encoder, data)


def missing(measurements: Measurements, finished: Finished) -> Measurements:
    """Those that the result does not hold yet, or holds with other settings."""

    def lacks(one: Measurement[Any]) -> bool:
        record = measurement(finished.result, one.name, one.record)
        return record is None or not one.has(record, finished)

    return [one for one in measurements if one.applies(finished) and lacks(one)]


def measure(
    finished: Finished,
    measurements: Measurements,
    *,
    on_stage: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Result:
    """The result with these measurements, each with the settings it was made with.

    Args:
        finished: What is measured further.
        measurements: What to measure; see `missing`.
        on_stage: Called with one line before each measurement.
        on_progress: Called with the share of a long measurement that is done.

    Raises:
        UserError: a measurement that this model, dataset or threat model cannot have.
    """
    found: dict[str, Measured] = {}
    for one in measurements:
        on_stage(f"measuring: {one.name.replace('_', ' ')}")
        record = one.make(finished, on_progress)
        settings = plain(one.noted(finished))
        found[one.name] = record.model_copy(update={"settings": settings})
    return with_measurements(finished.result, found)
