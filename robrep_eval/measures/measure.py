"""Further measurements of a finished evaluation, each on request and kept once made.

They read a result, its classifier and its adversarials, so a finished run can be
measured further without attacking again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch import nn

from robrep_eval.measures.base import Finished, Measurement
from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.measurements import Measured, measurement
from zoo.records import Result, with_measurements
from zoo.settings import plain

Measurements = Sequence[Measurement[Any]]
WORK = "measurements"


class Processes(Protocol):
    """Those that measure together; `robrep_eval.run.shards.Shards`."""

    @property
    def leader(self) -> bool:
        """True for the one that puts the result together."""

    def chunks(self, count: int, work: str = ...) -> Iterator[int]:
        """Numbers of the parts that this process is to do."""

    def announce(self, event: str, what: str = ...) -> None:
        """Tells the others something."""

    def wait(self, event: str) -> str:
        """What another process announced, once it has."""

    def gather(self, work: str = ..., *, everyone: bool = ...) -> None:
        """The leader waits until all processes have come here."""


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
    processes: Processes | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Result:
    """The result with these measurements, each with the settings it was made with.

    Args:
        finished: What is measured further.
        measurements: What to measure; see `missing`.
        processes: That share them out, each as a whole; this one alone by default. All
            are to come here with the same result and measurements.
        on_stage: Called with one line before each measurement.
        on_progress: Called with the share of a long measurement that is done.

    Returns:
        For processes that do not lead, the result as it was.

    Raises:
        UserError: a measurement that this model, dataset or threat model cannot have.
    """
    found: dict[str, Measured] = {}
    parts = _parts(measurements)
    for number in (
        range(len(parts)) if processes is None else processes.chunks(len(parts), WORK)
    ):
        for one in parts[number]:
            on_stage(f"measuring: {one.name.replace('_', ' ')}")
            record = one.make(finished, on_progress)
            settings = plain(one.noted(finished))
            found[one.name] = record.model_copy(update={"settings": settings})
    if processes is not None:
        found = _together(found, measurements, processes)
    return with_measurements(finished.result, found)


def _parts(measurements: Measurements) -> list[list[Measurement[Any]]]:
    """What one process makes in one go, in order."""
    parts: dict[str, list[Measurement[Any]]] = {}
    for one in measurements:
        parts.setdefault(one.shares or one.name, []).append(one)
    return list(parts.values())


def _together(
    found: dict[str, Measured], measurements: Measurements, processes: Processes
) -> dict[str, Measured]:
    """What all processes found, in the leading one; nothing in the others."""
    if not processes.leader:
        for name, record in found.items():
            processes.announce(f"{WORK}/{name}", record.model_dump_json())
    processes.gather(WORK)
    if not processes.leader:
        return {}

    def told(one: Measurement[Any]) -> Measured:
        return one.record.model_validate_json(processes.wait(f"{WORK}/{one.name}"))

    return {one.name: found.get(one.name) or told(one) for one in measurements}
