"""What a person sees: live progress on stderr, the table on stdout."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zoo.judgement import judge
from zoo.plain_text import plain
from zoo.two_phases import line as audit_line

if TYPE_CHECKING:
    from rich.table import Table

    from robrep_eval.compare import Comparison
    from robrep_eval.run.engine import Progress
    from robrep_eval.run.summary import Summary
    from zoo.records import ProbeRecord, Result

PLAIN_SECONDS = 10
"""Seconds between lines where stderr is not a terminal."""


class LiveProgress:
    """A bar on a terminal, a line now and then elsewhere, nothing if quiet."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.progress import Progress as Bars

        self.console = Console(stderr=True, quiet=quiet)
        self.live = self.console.is_terminal and not quiet
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[robust]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.bars.add_task("", total=1.0, robust="", visible=False)
        self.last = time.monotonic()
        self.doing = "at work"

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def stage(self, text: str) -> None:
        """One line before each stage."""
        self.doing = text
        self._print(text)

    def saved(self, text: str) -> None:
        """Where something was written; also if quiet, for it is no progress."""
        quiet, self.console.quiet = self.console.quiet, False
        self._print(text)
        self.console.quiet = quiet

    def _print(self, text: str) -> None:
        self.console.print(plain(text), highlight=False, soft_wrap=True, markup=False)

    def working(self, share: float) -> None:
        """How far a long fit or measurement is."""
        self._show(self.doing, share, "")

    def update(self, progress: Progress) -> None:
        """The attack under way and the robust accuracy so far."""
        so_far = f"robust so far {progress.robust}/{progress.begun}"
        first, last = progress.done + 1, progress.begun
        label = f"{progress.attack} on images {first} to {last} of {progress.total}"
        if not progress.attack:
            label = f"{progress.done} of {progress.total} images done"
        self._show(label, progress.share, so_far)

    def _show(self, label: str, share: float, so_far: str) -> None:
        """On the bar, or as a line when the last one is old enough."""
        if self.live:
            self.bars.update(
                self.task,
                description=label,
                completed=share,
                robust=so_far,
                visible=True,
            )
        elif time.monotonic() - self.last >= PLAIN_SECONDS:
            self.last = time.monotonic()
            self._print(f"{label} ({share:.0%}){so_far and ', '}{so_far}")


def print_result(result: Result) -> None:
    """The table of a result on stdout."""
    from rich.console import Console

    # Wide enough for whole lines in a pipe or a log file.
    width = None if sys.stdout.isatty() else 100
    console = Console(width=width, highlight=False, markup=False)
    console.print(result_table(result))
    for line in footnotes(result):
        console.print(plain(line), style="dim", soft_wrap=True)


def result_table(result: Result) -> Table:
    """One row per attack; accuracies with exact 95% intervals."""
    from rich.table import Table

    data = result.dataset
    table = Table(
        title=plain(
            f"{result.model.reference} on {data.name}/{data.split}, {data.n} images, "
            f"{result.threat}"
        ),
        title_justify="left",
    )
    table.add_column("attack")
    table.add_column("fooled", justify="right")
    table.add_column("accuracy [95% interval]", justify="right")
    table.add_column("seconds", justify="right")
    table.add_row("(clean)", "", str(result.clean), "")
    for run in result.attacks:
        table.add_row(
            run.name,
            f"{run.fooled}/{run.attempted}",
            str(run.robust),
            f"{run.seconds:.1f}",
        )
    table.add_section()
    if not result.attacks:
        table.add_row("(no attack was run)", "", "", "", style="bold")
        return table
    table.add_row(
        f"robust ({result.battery})",
        judge(result.measurements.health),
        str(result.robust),
        f"{result.seconds['attacks']:.1f}",
        style="bold",
    )
    return table


def footnotes(result: Result) -> list[str]:
    """What the table does not say."""
    from zoo.datasets import is_per_class

    audit = audit_line(result)
    lines = [] if audit is None else [f"{audit[:1].upper()}{audit[1:]}."]
    if result.attacks:
        lines.append(
            f"Every adversarial re-checked: {result.evidence.count} inside the ball "
            f"and [0, 1], misclassified; {result.undecided} examples undecided."
        )
    if result.per_class is not None and is_per_class(result.dataset.name):
        means = result.per_class
        lines.append(
            f"Mean over {means.classes} classes, as {result.dataset.name} is usually "
            f"stated: clean {means.clean:.1%}, robust {means.robust:.1%}."
        )
    if result.probe is not None:
        lines.append(_probe_line(result.probe))
    lines.append(
        f"Engine: {result.engines}; seed {result.seed}, chunks of "
        f"{result.chunk_size}; robrep {result.provenance.robrep}."
    )
    lines += [
        f"{run.name}: {note.removeprefix(f'{run.name}: ')}."
        for run in result.attacks
        for note in run.notes
    ]
    return [*lines, *_measured(result), *result.notes]


def _probe_line(probe: ProbeRecord) -> str:
    """Protocol, data, and what was chosen on held-out images."""
    chosen = "l2" if "l2" in probe.parameters else "rate"
    labels = f" ({probe.labels} labels)" if probe.labels else ""
    text = (
        f"Probe: {probe.protocol} on {probe.train_n} images of {probe.train}{labels}, "
        f"{chosen} {probe.parameters[chosen]:g}"
    )
    if probe.knn_accuracy is not None:
        text += f"; k-NN sanity figure {probe.knn_accuracy:.1%}"
    return f"{text}."


def _measured(result: Result) -> list[str]:
    """What each further measurement says of itself."""
    from robrep_eval.measures.registry import ROWS
    from zoo.measurements import measurement

    lines = []
    for row in ROWS.values():
        kind = row.load()
        record = measurement(result, row.name, kind.record)
        if record is not None:
            lines += kind.told(record, result).splitlines()
    return lines


def print_summary(summary: Summary) -> None:
    """One row per evaluation on stdout; in a pipe, one line."""
    from robrep_eval.run.summary import NOTE, NUMBERS
    from zoo.commands.options import plain_table, show_table

    table = plain_table(summary.title)
    for name in summary.headings:
        table.add_column(name, justify="right" if name in NUMBERS else "left")
    for row in summary.rows:
        table.add_row(*map(plain, row.cells(summary.headings)))
    show_table(table)
    show_table(NOTE)


def print_comparison(comparison: Comparison) -> None:
    """The table of a comparison on stdout."""
    from rich.console import Console
    from rich.table import Table

    c = comparison
    table = Table(
        title=plain(f"{c.shared} shared images of {c.dataset}, {c.threat}"),
        title_justify="left",
    )
    for name in ("", "A", "B", "B - A [95% interval]", "p"):
        table.add_column(name, justify="right" if name else "left")
    for row in c.rows:
        interval = f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
        table.add_row(
            row.name,
            f"{row.a.value:.1%}",
            f"{row.b.value:.1%}",
            f"{100 * row.difference:+.1f} {interval}",
            f"{row.p_value:.2g}",
        )
    width = None if sys.stdout.isatty() else 100
    console = Console(width=width, highlight=False, markup=False)
    for caution in c.cautions:
        console.print(f"Beware: {caution}.", style="yellow", markup=False)
    console.print(table)
    for name, model in (("A", c.a), ("B", c.b)):
        console.print(f"{name}: {model}", markup=False, soft_wrap=True)
    if c.only_in_one:
        console.print(f"Only in one of them: {', '.join(c.only_in_one)}.", style="dim")
