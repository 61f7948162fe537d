"""The table of measurements. Imports no torch: the command reads its options here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from zoo.commands.numbers import DECIMAL, WHOLE
from zoo.errors import UserError, nearest
from zoo.feature_metric import METRICS, PLAIN

if TYPE_CHECKING:
    from robrep_eval.measures.base import Measurement

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement: where it is, and how the command knows it."""

    name: str
    where: str
    """"module:class", a `robrep_eval.measures.base.Measurement`."""
    options: tuple[Callable[[Any], Any], ...] = ()
    """Of `robrep-eval`, as click makes them; `Measurement.asked` reads their values."""
    certificate: bool = False
    """Asked for by --certify."""
    usual: bool = False
    """Made, with its defaults, unless something else is asked for."""
    with_full: str = ""
    """What a note calls it where it cannot be had; `--battery full` brings it along."""
    absent: str = ""
    """What a report says in its place."""

    def load(self) -> type[Measurement[Any]]:
        """The class."""
        module, name = self.where.split(":")
        found: type[Measurement[Any]] = getattr(import_module(module), name)
        return found


_TABLE = (
    Row(
        name="health",
        where="robrep_eval.measures.health.measurement:HealthChecks",
        usual=True,
        absent="Not run: nothing is known about the evaluation itself "
        "(--health default runs the checks).",
        options=(
            click.option(
                "--health",
                default="default",
                show_default=True,
                metavar="LEVEL",
                help="Checks of the evaluation itself: none, default or full.",
            ),
        ),
    ),
    Row(
        name="eps_curve",
        where="robrep_eval.measures.health.measurement:RadiusCurve",
        usual=True,
    ),
    Row(
        name="lipschitz",
        where="robrep_eval.measures.lipschitz:LipschitzMargins",
        certificate=True,
        absent="No certificate for this classifier: nothing is proved from below "
        "(--certify lipschitz needs an encoder with a known constant).",
        options=(
            click.option(
                "--certify",
                multiple=True,
                metavar="KIND",
                help="Also prove: smoothing (L2, by sampling) or lipschitz. May be "
                "repeated.",
            ),
        ),
    ),
    Row(
        name="smoothing",
        where="robrep_eval.measures.certify:Smoothing",
        certificate=True,
        absent="Randomised smoothing was not asked for (--certify smoothing).",
        options=(
            click.option(
                "--sigma",
                type=DECIMAL,
                default=0.25,
                show_default=True,
                metavar="DEVIATION",
                help="Of the noise of --certify smoothing, for pixels in [0, 1].",
            ),
            click.option(
                "--samples",
                type=WHOLE,
                default=10_000,
                show_default=True,
                metavar="N",
                help="Noisy versions of each image for --certify smoothing.",
            ),
        ),
    ),
    Row(
        name="bound",
        where="robrep_eval.measures.bound:EstimatedBound",
        usual=True,
        absent="Not estimated: the bound is about a linear head on features, and "
        "this run has none or left it out (--no-bound).",
        options=(
            click.option(
                "--bound/--no-bound",
                default=True,
                show_default=True,
                help="Estimate the bound on the adversarial loss.",
            ),
            click.option(
                "--feature-metric",
                default=PLAIN,
                show_default=True,
                metavar="METRIC",
                help="Of the bound and --label-free: plain, or whitened, which no "
                "invertible linear map of the features changes (more images than "
                "features).",
            ),
        ),
    ),
    Row(
        name="label_free",
        where="robrep_eval.measures.label_free:WithoutLabels",
        absent="Not measured (--label-free).",
        options=(
            click.option(
                "--label-free",
                is_flag=True,
                help="Also measure the encoder without any probe.",
            ),
        ),
    ),
    Row(
        name="corruptions",
        where="robrep_eval.measures.corruptions:CommonCorruptions",
        with_full="Common corruptions",
        absent="Not measured (--corruptions).",
        options=(
            click.option(
                "--corruptions",
                metavar="SOURCE",
                help='Also measure common corruptions: "generated", or the folder of '
                "the official CIFAR-10-C arrays.",
            ),
        ),
    ),
)
ROWS = {row.name: row for row in _TABLE}
"""By the name of the measurement."""


def usual() -> tuple[Measurement[Any], ...]:
    """What every evaluation measures unless told otherwise."""
    return tuple(row.load()() for row in ROWS.values() if row.usual)


def options(command: Command) -> Command:
    """Gives a click command the options of all measurements, in the table's order."""
    for row in reversed(ROWS.values()):
        for option in reversed(row.options):
            command = option(command)
    return command


def default_options() -> dict[str, Any]:
    """Values of the measurements' options where nothing is asked for, by name."""
    command = options(click.command()(lambda: None))
    return dict(command.make_context("defaults", []).params)


def read_options(values: Mapping[str, Any]) -> tuple[Measurement[Any], ...]:
    """The measurements that a command line asks for.

    Args:
        values: Of its options, by parameter name.

    Raises:
        UserError: an unknown word, or a setting that makes no sense.
    """
    _check_metric(values)
    certificates = [row.name for row in ROWS.values() if row.certificate]
    for name in values["certify"]:
        if name not in certificates:
            raise UserError(
                f"unknown certificate '{name}'; {nearest(name, certificates)}"
            )
    found = [
        row.load().asked(values)
        for row in ROWS.values()
        if not row.certificate or row.name in values["certify"]
    ]
    return tuple(made for made in found if made is not None)


def _check_metric(values: Mapping[str, Any]) -> None:
    """A known one, of something that is asked for."""
    metric = values["feature_metric"]
    if metric not in METRICS:
        raise UserError(
            f"unknown feature metric '{metric}'; {nearest(metric, METRICS)}"
        )
    if metric != PLAIN and not (values["bound"] or values["label_free"]):
        raise UserError(
            f"feature metric '{metric}' is of the bound and of label-free measures; "
            "neither is asked for"
        )
