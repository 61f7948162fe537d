"""Several runs on one page: models, radii or data sets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robrep_eval.report.answers import Answer, limit, verdict
from robrep_eval.report.bars import Bar, bars, share_bar, shares
from robrep_eval.report.figures import Figure
from robrep_eval.report.material import finished_folder
from zoo.records import Result
from zoo.result_file import read_result


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run, as a row."""

    result: Result
    verdict: Answer
    limit: Answer | None

    @property
    def protocol(self) -> str:
        """How its probe was fitted, with the share of labels if not all."""
        probe = self.result.probe
        if probe is None:
            return "none"
        return f"{probe.protocol}, {probe.labels}" if probe.labels else probe.protocol

    @property
    def setting(self) -> str:
        """All that must be the same for two figures to be compared."""
        result = self.result
        data = result.dataset
        return ", ".join(
            (
                f"{data.name}/{data.split}, {data.n:,} images",
                str(result.threat),
                self.protocol,
                result.battery,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What the page shows."""

    rows: list[RunRow]
    figure: Figure
    same: bool
    """Whether all runs differ in the model alone."""


def overview(runs: Sequence[Path]) -> Overview:
    """Reads the records of finished runs; raises `UserError` as `read_result`."""
    rows = []
    for run in runs:
        result = read_result(finished_folder(run))
        found = result.measurements
        rows.append(
            RunRow(
                result=result,
                verdict=verdict(found.health),
                limit=limit(found.bound),
            )
        )
    settings = {(row.setting, row.result.dataset.sha256) for row in rows}
    return Overview(rows=rows, figure=_figure(rows), same=len(settings) == 1)


def _figure(rows: Sequence[RunRow]) -> Figure:
    """One bar for each run."""
    axis, ticks = shares()
    drawn: list[Bar] = [
        share_bar(_name(row.result), row.result.robust, "held") for row in rows
    ]
    told = "; ".join(f"{row.label} {row.value}" for row in drawn)
    drawing = bars(
        "runs",
        "Robust accuracy",
        f"Bars with 95% intervals: {told}.",
        drawn,
        axis=axis,
        ticks=ticks,
        name="robust accuracy, %",
    )
    return Figure(drawing=drawing)


def _name(result: Result) -> str:
    return f"{result.model.reference}, {result.threat}"
