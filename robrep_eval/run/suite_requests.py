"""Requests for the tasks of a suite: `robrep-eval --suite NAME` evaluates a model, or
several, on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robrep_eval.run.places import words_for
from robrep_eval.run.plan import differing, model_word
from robrep_eval.run.request import Request, read_request
from zoo.datasets.names import OPTIONS
from zoo.errors import UserError
from zoo.paths import safe_name
from zoo.suites.suite import Suite, Task
from zoo.threat import parse_norm

FIXED = (
    "dataset",
    "train",
    "eps",
    "labels",
    "dataset_name",
    "name",
    "classes",
    *OPTIONS,
)
"""Options that a suite decides."""


def suite_requests(
    suite: Suite, options: Mapping[str, Any], command: Sequence[str]
) -> list[Request]:
    """A request for each model and task, each with its own run folder.

    Args:
        suite: The tasks.
        options: Of `robrep-eval run`; what a suite decides is not given.
        command: The words as typed, for the record.

    Raises:
        UserError: an option that the suite decides, or as `read_request`.
    """
    check_left_out(suite, options)
    if len(options["probe"]) > 1:
        raise UserError("a suite takes one --probe; call it again for another")
    found = []
    for model in options["model"]:
        for task in suite.tasks:
            one = {
                **options,
                **task_options(suite, task, options["limit"]),
                "model": model,
                "probe": options["probe"][0],
            }
            found.append(read_request(one, command))
    return placed_tasks(suite, found, options["output"])


def check_left_out(suite: Suite, options: Mapping[str, Any]) -> None:
    """Raises `UserError` for an option that the suite decides, or another norm."""
    for name in FIXED:
        value = options.get(name)
        if value is not None and not (isinstance(value, tuple | list) and not value):
            raise UserError(
                f"--{name.replace('_', '-')} is for the suite {suite.name} to say; "
                "leave it out, or name datasets in place of --suite"
            )
    norm = options.get("norm", suite.norm)
    if parse_norm(norm) != suite.norm:
        raise UserError(f"the suite {suite.name} is in {suite.norm}, not {norm}")


def task_options(suite: Suite, task: Task, limit: int | None) -> dict[str, Any]:
    """What a suite decides of one evaluation, but for `limit` images of the user's."""
    return {
        "dataset": task.dataset,
        "eps": str(task.eps),
        "labels": task.labels,
        "limit": suite.images if limit is None else limit,
    }


def placed_tasks(
    suite: Suite, requests: Sequence[Request], output: Path | None
) -> list[Request]:
    """The requests, each with the run folder of its model and task.

    Args:
        suite: The tasks.
        requests: All tasks of the first model in their order, then of the next.
        output: Folder of all of them; by default runs/suite-NAME-vVERSION, with what
            differs from the defaults appended.
    """
    first = requests[0]
    limit = first.limit if first.limit != suite.images else None
    words = [f"suite-{suite.name}-v{suite.version}", *differing(first, n=limit)]
    base = output or Path("runs") / safe_name("-".join(words))
    models = words_for([request.model for request in requests], model_word)
    return [
        replace(
            request,
            output=base
            / safe_name(word)
            / safe_name(suite.tasks[at % len(suite.tasks)].name),
        )
        for at, (request, word) in enumerate(zip(requests, models, strict=True))
    ]
