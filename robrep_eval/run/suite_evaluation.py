"""Evaluates models on all tasks of a suite, from the command line and from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from robrep_eval.run.callbacks import Callbacks, showing
from robrep_eval.run.engine import Progress
from robrep_eval.run.options import SharedOptions, request_options
from robrep_eval.run.plan import check_request
from robrep_eval.run.request import Request
from robrep_eval.run.several import check_distinct, check_names, listed, run_each
from robrep_eval.run.suite_images import check_images
from robrep_eval.run.suite_requests import (
    check_left_out,
    placed_tasks,
    task_options,
)
from robrep_eval.run.suite_result import (
    JSON,
    MARK,
    MARKDOWN,
    SuiteResult,
    suite_result,
)
from robrep_eval.run.summary import Failure, SummaryRow
from zoo.errors import UserError
from zoo.files import write_text
from zoo.paths import user_path
from zoo.processes import leading
from zoo.records import read_record, write_record
from zoo.suites.suite import Suite, load_suite


def evaluate_suite(
    models: str | nn.Module | Sequence[str | nn.Module],
    suite: str | Path | Suite,
    *,
    probe: str = "slf",
    progress: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_stage: Callable[[str], None] = lambda _: None,
    on_work: Callable[[float], None] = lambda _: None,
    **options: Unpack[SharedOptions],
) -> SuiteResult:
    """Evaluates models on all tasks of a suite; the same call again goes on.

    >>> from robrep_eval import evaluate_suite
    >>> found = evaluate_suite("zoo:tarrl-digits", "digits", attacks="quick")
    ... # doctest: +SKIP
    >>> print(found.totals[0].robust_mean)  # doctest: +SKIP

    Args:
        models: One or a list of what `evaluate` takes.
        suite: Its name, a file "PATH.yaml", or the suite itself.
        probe: Protocol.
        progress: Draws a bar, in scripts and notebooks, in place of the callbacks.
        on_progress: Called as a battery advances.
        on_stage: Called with one line before each stage.
        on_work: Called with the share of a long fit or measurement that is done.
        options: Of all evaluations, as `evaluate` takes them, but for what the suite
            decides: datasets, radii, labels. `output` is the folder of the table and
            of each task's run; by default runs/suite-NAME-vVERSION, with what differs
            from the defaults appended.

    Returns:
        The table, also in suite.json and suite.md of the folder; tasks that failed are
        in `failed`, with their reasons.

    Raises:
        UserError: a name that nothing is known by, an option that the suite decides,
            or a value that makes no sense.
    """
    tasks = suite if isinstance(suite, Suite) else load_suite(str(suite))
    check_left_out(tasks, options)
    chosen_models = listed(models)
    if not chosen_models:
        raise UserError("no model to evaluate; name one, or give a module")
    check_distinct("model", chosen_models)
    output = options.get("output")
    base = None if output in (None, "auto") else user_path(str(output))
    requests = []
    for model, task in product(chosen_models, tasks.tasks):
        chosen: dict[str, Any] = {
            "norm": tasks.norm,
            **options,
            **task_options(tasks, task, options.get("limit")),
            "probe": probe,
        }
        data = chosen.pop("dataset")
        requests.append(Request(model=model, dataset=data, **request_options(chosen)))
    requests = placed_tasks(tasks, requests, base)
    with showing(progress, on_progress, on_stage, on_work) as tell:
        return run_suite(tasks, requests, tell)


def run_suite(
    suite: Suite, requests: Sequence[Request], tell: Callbacks | None = None
) -> SuiteResult:
    """Evaluates what was asked for of a suite.

    Args:
        suite: The tasks.
        requests: As `suite_requests` makes them.
        tell: Whom to tell how far it is.

    Returns:
        The table, also in suite.json and suite.md of the folder that holds the runs,
        where it is written after each evaluation.

    Raises:
        UserError: a name that nothing is known by, images that are not here, two
            folders of images with one name, or, in the place of the table, another one
            or a file that is none.
            What goes wrong later is in `failed`.
    """
    tell = tell or Callbacks()
    for request in requests:
        check_request(request)
    check_names(requests)
    first = requests[0]
    check_images(suite, first.data_dir)
    assert isinstance(first.output, Path)
    base = first.output.parents[1]
    before = _check_place(base, suite_result(suite, requests, [], [], base))

    def keep(rows: list[SummaryRow], failed: list[Failure]) -> SuiteResult:
        found = suite_result(suite, requests, rows, failed, base)
        worth = rows or before is None or not before.rows
        if leading() and worth:  # a table is not replaced by failures alone
            base.mkdir(parents=True, exist_ok=True)
            write_record(base / JSON, found)
            write_text(base / MARKDOWN, MARK + found.to_markdown())
        return found

    found = keep(*run_each(requests, tell, base, keep))
    if leading():
        tell.saved(f"suite saved in {base / JSON}")
    return found


def _check_place(base: Path, empty: SuiteResult) -> SuiteResult | None:
    """What is in the place of a table that is `empty` as yet.

    Raises:
        UserError: it is no table of a suite, or one of something else.
    """
    if base.exists() and not base.is_dir():
        raise UserError(f"{base} is no folder; choose another output")
    path = base / MARKDOWN
    if path.exists() and not _is_ours(path):
        raise UserError(f"{path} is there already and is none of robrep's; move it")
    if not (base / JSON).exists():
        return None
    found = read_record(base / JSON, SuiteResult)
    told, asked = ((*one.asked, f"{one.images} images") for one in (found, empty))
    if told != asked:
        raise UserError(
            f"{base / JSON} is the table of {', '.join(told)}, not of "
            f"{', '.join(asked)}; choose another --output"
        )
    return found


def _is_ours(path: Path) -> bool:
    """Whether it is the table of a suite."""
    try:
        with path.open("rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:  # a folder, or nothing that can be read
        return False
