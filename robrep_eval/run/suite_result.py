"""What models came to on a suite: a record, its tables, and how it is evaluated."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Literal

from robrep_eval.run.plan import Request
from robrep_eval.run.suite import Suite
from robrep_eval.run.suite_figures import Answers, Estimate, figures
from robrep_eval.run.summary import Failure, SummaryRow, counted
from zoo.board.text import percent
from zoo.judgement import mark
from zoo.records import Record, Result, Training
from zoo.result_file import read_result
from zoo.selection import ascending
from zoo.tables import escape_markdown, markdown_table
from zoo.verdicts import correct, robust

JSON, MARKDOWN = "suite.json", "suite.md"
MARK = "<!-- Suite of robrep-eval -->\n"
"""First line: no other file is replaced by one."""
KINDS = ("clean", "robust")
HEADINGS = ("", "clean mean", "clean worst", "robust mean", "robust worst", "on")
NUMBERS = frozenset(HEADINGS[1:5])
NOTE = (
    "Accuracies in %. In brackets: of a task, 95% intervals (Clopper-Pearson); of mean "
    "and worst, 95% by the bootstrap over images, and over models where there are "
    "several of one method."
)


class TaskRow(Record):
    """One model on one task."""

    task: str
    row: SummaryRow


class Total(Record):
    """One model, or several of one method, over all tasks."""

    name: str
    """Of the model, or of the method."""
    models: list[str]
    labels: bool | None
    """Whether pretraining saw labels; null if nobody says."""
    clean_mean: Estimate
    clean_worst: Estimate
    robust_mean: Estimate
    robust_worst: Estimate
    clean_worst_task: str
    robust_worst_task: str

    def cells(self) -> list[str]:
        """In the order of `HEADINGS`."""
        figure = (
            self.clean_mean,
            self.clean_worst,
            self.robust_mean,
            self.robust_worst,
        )
        return [self.name, *map(str, figure), self.robust_worst_task]


class SuiteResult(Record):
    """Models on all tasks of a suite."""

    schema_version: Literal[1] = 1
    suite: str
    version: int
    tasks: list[str]
    battery: str
    images: int
    """At most so many of each task; the suite's own number unless --limit was given."""
    own_images: bool
    """Whether that number is the suite's."""
    rows: list[TaskRow]
    totals: list[Total]
    """Of models with a result on every task, then of methods with several of them."""
    failed: list[Failure]
    missing: int = 0
    """Evaluations that had not run when this was written."""

    @property
    def title(self) -> str:
        """Suite, version, and what differs from it."""
        words = [f"suite {self.suite}, version {self.version}", self.battery]
        if self.missing:
            count = len(self.rows) + len(self.failed)
            words.append(counted(count, self.missing))
        words += [] if self.own_images else [f"{self.images} images of each task"]
        words += [f"{len(self.failed)} failed"] if self.failed else []
        return ", ".join(words)

    def to_markdown(self) -> str:
        """Totals, then every task."""
        totals = markdown_table(
            HEADINGS, [total.cells() for total in self.totals], numbers=set(NUMBERS)
        )
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
        table = markdown_table(headings, rows, numbers={"images", "clean", "robust"})
        failed = "".join(f"- failed: {escape_markdown(one)}\n" for one in self.failed)
        parts = [f"{escape_markdown(self.title)}\n", totals, table, failed, NOTE]
        return "\n".join(filter(None, parts)) + "\n"

    def to_text(self) -> str:
        """The same for a terminal: two lines for each model, one for each task."""
        lines = [self.title]
        for total in self.totals:
            lines.append(total.name)
            for kind in KINDS:
                mean, worst, task = (
                    getattr(total, f"{kind}_{which}")
                    for which in ("mean", "worst", "worst_task")
                )
                lines.append(f"  {kind:7} mean {mean}, worst {worst} ({task})")
            lines += [
                f"    {each.task:14} clean {percent(each.row.clean)}, robust "
                f"{percent(each.row.robust) if each.row.robust else '-'}"
                f"{mark(each.row.judgement)}"
                for each in self.rows
                if [each.row.model] == total.models
            ]
        return "\n".join([*lines, NOTE])


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
    told = [TaskRow(task=tasks[str(row.folder)], row=row) for row in rows]
    first = requests[0]
    limit = first.limit or suite.images
    return SuiteResult(
        suite=suite.name,
        version=suite.version,
        tasks=[task.name for task in suite.tasks],
        battery=first.attacks,
        images=limit,
        own_images=limit == suite.images,
        rows=told,
        totals=_totals(suite, told, base),
        failed=failed,
        missing=len(requests) - len(rows) - len(failed),
    )


def _totals(suite: Suite, rows: Sequence[TaskRow], base: Path) -> list[Total]:
    """Of each model that has all tasks, and of each method with several such."""
    results: dict[str, dict[str, Result]] = {}
    for each in rows:
        assert each.row.folder is not None
        of = results.setdefault(each.row.model, {})
        of[each.task] = read_result(base / each.row.folder)
    whole = {
        model: {task.name: found[task.name] for task in suite.tasks}
        for model, found in results.items()
        if len(found) == len(suite.tasks)
    }
    totals = [_total(model, [model], [found]) for model, found in whole.items()]
    methods: dict[tuple[str, str], list[str]] = {}
    for model, found in whole.items():
        made = next(iter(found.values())).model
        if made.training is not None:
            key = (_method(made.training), _settings(made.arch, made.training))
            methods.setdefault(key, []).append(model)
    for (name, _), models in methods.items():
        if len(models) > 1:
            words = f"{name}, {len(models)} models"
            totals.append(_total(words, models, [whole[model] for model in models]))
    return totals


def _settings(arch: str, training: Training) -> str:
    """What models must share to be seeds of one method: all but the seed and name."""
    recipe = {k: v for k, v in training.recipe.items() if k not in ("seed", "name")}
    return json.dumps([arch, recipe], sort_keys=True, default=str)


def _method(training: Training) -> str:
    """For people."""
    labels = ", with labels" if training.labels else ""
    against = training.threat or "nothing"
    cost = "" if training.epochs is None else f", {training.epochs} epochs"
    return f"{training.method}{labels} on {training.dataset} against {against}{cost}"


def _total(name: str, models: list[str], results: Sequence[dict[str, Result]]) -> Total:
    mixed = _mixed(result for found in results for result in found.values())
    answers = [
        {
            task: Answers(
                images=_images(result, mixed),
                clean=correct(result.examples),
                robust=robust(result.examples),
            )
            for task, result in found.items()
        }
        for found in results
    ]
    clean, held = (figures(answers, kind) for kind in KINDS)
    training = next(iter(results[0].values())).model.training
    return Total(
        name=name,
        models=models,
        labels=None if training is None else training.labels,
        clean_mean=clean.mean,
        clean_worst=clean.worst,
        robust_mean=held.mean,
        robust_worst=held.worst,
        clean_worst_task=clean.worst_task,
        robust_worst_task=held.worst_task,
    )


def _images(result: Result, mixed: Container[str]) -> str:
    """Equal for tasks on the same images, whatever was made of these.

    Args:
        result: Of a task.
        mixed: Bases whose derived tasks have their images in an order of their own.
    """
    data, base = result.dataset, _base(result)
    apart = "+" * ("+" in data.name and base in mixed)
    return f"{base}{apart}/{data.split} {result.examples.index}"


def _base(result: Result) -> str:
    return result.dataset.name.partition("@")[0].partition("+")[0]


def _mixed(results: Iterable[Result]) -> set[str]:
    """Bases that are sorted by class, as far as tasks on them tell."""
    return {
        _base(result)
        for result in results
        if "+" not in result.dataset.name and ascending(result.examples.label)
    }
