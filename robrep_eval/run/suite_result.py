"""What models came to on a suite: a record, its tables, and how it is evaluated."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from robrep_eval.run.request import Request
from robrep_eval.run.suite_totals import KINDS, Beside, Total, beside_first, totals
from robrep_eval.run.summary import Failure, SummaryRow, counted
from zoo.board.text import percent
from zoo.judgement import mark
from zoo.records import Record, Result
from zoo.result_file import read_result
from zoo.suites.suite import Suite
from zoo.tables import escape_markdown, markdown_table

JSON, MARKDOWN = "suite.json", "suite.md"
MARK = "<!-- Suite of robrep-eval -->\n"
"""First line: no other file is replaced by one."""
HEADINGS = ("", "clean mean", "clean worst", "robust mean", "robust worst", "on")
NUMBERS = frozenset(HEADINGS[1:5])
NOTE = (
    "Accuracies in %. In brackets: of a task, 95% intervals (Clopper-Pearson); of "
    "mean and difference, 95% by the bootstrap over images, and over models where "
    "there are several of one method (of their difference no shorter than Welch's); "
    "worst is the lowest task, and its interval that of the task, of several models by "
    "the bootstrap. Differences are in points, paired by image."
)


class TaskRow(Record):
    """One model on one task."""

    task: str
    row: SummaryRow


class SuiteResult(Record):
    """Models on all tasks of a suite."""

    schema_version: Literal[1] = 1
    suite: str
    version: int
    tasks: list[str]
    battery: str
    probe: str | None = None
    """Protocol asked for; null in tables before robrep said so."""
    images: int
    """At most so many of each task; the suite's own number unless --limit was given."""
    own_images: bool
    """Whether that number is the suite's."""
    rows: list[TaskRow]
    totals: list[Total]
    """Of models with a result on every task, then of methods with several of them."""
    beside: list[Beside] = Field(default_factory=list)
    """Each method (or model alone) less the first; of those in `totals`."""
    failed: list[Failure]
    missing: int = 0
    """Evaluations that had not run when this was written."""

    @property
    def asked(self) -> list[str]:
        """What all figures share: suite, battery, and protocol if it is not SLF."""
        words = [f"suite {self.suite}, version {self.version}", self.battery]
        said = (each.row.protocol for each in self.rows)
        protocol = self.probe or next(filter(None, said), "SLF")
        return [*words, *[protocol] * (protocol != "SLF")]

    @property
    def title(self) -> str:
        """Suite, version, and what differs from it."""
        words = self.asked
        if self.missing:
            count = len(self.rows) + len(self.failed)
            words.append(counted(count, self.missing))
        words += [] if self.own_images else [f"{self.images} images of each task"]
        words += [f"{len(self.failed)} failed"] if self.failed else []
        return ", ".join(words)

    def to_markdown(self) -> str:
        """Totals, differences, then every task."""
        totals = markdown_table(
            HEADINGS, [total.cells() for total in self.totals], numbers=set(NUMBERS)
        )
        failed = "".join(f"- failed: {escape_markdown(one)}\n" for one in self.failed)
        title = f"{escape_markdown(self.title)}\n"
        parts = [title, totals, self._differences(), self._each(), failed, NOTE]
        return "\n".join(filter(None, parts)) + "\n"

    def _differences(self) -> str:
        """Markdown, empty if there is but one model."""
        if not self.beside:
            return ""
        rows = [
            [each.name, str(each.clean), str(each.robust or "-")]
            for each in self.beside
        ]
        first = escape_markdown(self.beside[0].first)
        heading = f"mean over tasks, less {first}"
        return markdown_table((heading, *KINDS), rows, numbers=set(KINDS))

    def _each(self) -> str:
        """Markdown: every task of every model."""
        headings = ("task", "model", "images", "clean", "robust")
        rows = [
            [
                each.task,
                each.row.model,
                str(each.row.n),
                percent(each.row.clean),
                (percent(each.row.robust) if each.row.robust else "-")
                + mark(each.row.judgement),
            ]
            for each in self.rows
        ]
        return markdown_table(headings, rows, numbers={"images", "clean", "robust"})

    def to_text(self) -> str:
        """The same for a terminal: two lines for each model, one for each task."""
        lines = [self.title]
        for total in self.totals:
            lines.append(total.name)
            lines += _lines(total)
            lines += [
                f"    {each.task:14} clean {percent(each.row.clean)}, robust "
                f"{percent(each.row.robust) if each.row.robust else '-'}"
                f"{mark(each.row.judgement)}"
                for each in self.rows
                if [each.row.model] == total.models
            ]
        lines += [
            f"{each.name}, less {each.first}: clean {each.clean}, robust "
            f"{each.robust or '-'}"
            for each in self.beside
        ]
        return "\n".join([*lines, NOTE])


def _lines(total: Total) -> list[str]:
    """Of one model or method, for a terminal."""
    clean = f"mean {total.clean_mean}, worst {total.clean_worst}"
    lines = [f"  clean   {clean} ({total.clean_worst_task})"]
    if total.robust_mean:
        held = f"mean {total.robust_mean}{mark(total.judgement)}"
        worst = f"worst {total.robust_worst}{mark(total.worst_judgement)}"
        worst += f" ({total.robust_worst_task})"
        lines.append(f"  robust  {held}, {worst}")
    return lines


def suite_result(
    suite: Suite,
    requests: Sequence[Request],
    rows: Sequence[SummaryRow],
    failed: list[Failure],
    base: Path,
) -> SuiteResult:
    """Puts the rows beside their tasks, and totals below them."""
    tasks = {
        os.path.relpath(request.output, base): suite.tasks[at % len(suite.tasks)].name
        for at, request in enumerate(requests)
        if isinstance(request.output, Path)
    }
    told = [TaskRow(task=tasks[str(row.folder)], row=row) for row in _apart(rows)]
    whole = _whole(suite, told, base)
    first = requests[0]
    limit = suite.images if first.limit is None else first.limit
    return SuiteResult(
        suite=suite.name,
        version=suite.version,
        tasks=[task.name for task in suite.tasks],
        battery=first.attacks,
        probe=first.probe.protocol,
        images=limit,
        own_images=limit == suite.images,
        rows=told,
        totals=totals(whole),
        beside=beside_first(whole),
        failed=failed,
        missing=len(requests) - len(rows) - len(failed),
    )


def _apart(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """Models of one reference, as two modules of Python have, by their folders."""
    folders: dict[str, set[str]] = {}
    for row in rows:
        folders.setdefault(row.model, set()).add(_folder(row))
    return [
        row.model_copy(update={"model": _folder(row)})
        if len(folders[row.model]) > 1
        else row
        for row in rows
    ]


def _folder(row: SummaryRow) -> str:
    """The word that a suite's folder has for the model."""
    return str(row.folder).partition("/")[0]


def _whole(
    suite: Suite, rows: Sequence[TaskRow], base: Path
) -> dict[str, dict[str, Result]]:
    """Results by model and task, of the models that have all tasks."""
    results: dict[str, dict[str, Result]] = {}
    for each in rows:
        assert each.row.folder is not None
        of = results.setdefault(each.row.model, {})
        of[each.task] = read_result(base / each.row.folder)
    return {
        model: {task.name: found[task.name] for task in suite.tasks}
        for model, found in results.items()
        if len(found) == len(suite.tasks)
    }
