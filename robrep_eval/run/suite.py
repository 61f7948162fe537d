"""A suite: downstream tasks on which encoders of one kind are measured, in a file.

The file is versioned: a task that changes, comes or goes is a new version, so that a
mean over tasks always says over which. `robrep-eval --suite NAME` evaluates a model, or
several, on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from robrep_eval.run.places import words_for
from robrep_eval.run.plan import differing, model_word, safe_name
from robrep_eval.run.request import Request, read_request
from robrep_eval.suites import FOLDER, names
from zoo import datasets, yaml_text
from zoo.datasets.names import OPTIONS
from zoo.errors import UserError, nearest
from zoo.label_budget import LabelBudget
from zoo.paths import user_path
from zoo.records import Name, Record
from zoo.schema import Size, Version, validated
from zoo.threat import Norm, parse_eps, parse_norm

FEWEST = 2
"""Tasks of a suite."""
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
TaskName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+%-]*$", max_length=60)]


def _as_text(value: object) -> object:
    """A number of labels is text too, as on the command line."""
    plain = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if plain else value


class Task(Record):
    """One downstream task: images and labels, and how far an attack may go."""

    name: TaskName
    dataset: str
    """Its training split is for the probe, its test split for the figure."""
    eps: float | str
    """Radius, as 0.1 or "8/255"."""
    labels: Annotated[str, BeforeValidator(_as_text)] | None = None
    """How many training labels the probe may use; null for all."""

    @property
    def asked(self) -> tuple[object, ...]:
        """What makes it another task than one with another name."""
        return self.dataset, parse_eps(self.eps), self.labels

    @model_validator(mode="after")
    def _known(self) -> Task:
        datasets.check(self.dataset)
        parse_eps(self.eps)
        if self.labels is not None:
            LabelBudget.parse(self.labels)
        return self


class Suite(Record):
    """Tasks for encoders that were pretrained on one dataset."""

    schema_version: Literal[1] = 1
    name: Name
    version: Version
    """Raised with any change of what is below."""
    about: str
    pretraining: str
    """Dataset that such encoders were pretrained on."""
    norm: Norm
    images: Size
    """First test images of each task."""
    tasks: Annotated[list[Task], Field(min_length=FEWEST)]

    @model_validator(mode="after")
    def _distinct(self) -> Suite:
        names: dict[str, str] = {}
        for name in (task.name for task in self.tasks):
            folder = safe_name(name).casefold()
            if names.get(folder) == name:
                raise ValueError(f"two tasks have one name: '{name}'")
            if folder in names:
                raise ValueError(
                    f"the tasks '{names[folder]}' and '{name}' would share a folder; "
                    "give one of them another name"
                )
            names[folder] = name
        asked: dict[tuple[object, ...], str] = {}
        for task in self.tasks:
            same = asked.setdefault(task.asked, task.name)
            if same != task.name:
                raise ValueError(
                    f"the tasks '{same}' and '{task.name}' are one: dataset, radius "
                    "and labels are the same"
                )
        return self

    @property
    def title(self) -> str:
        """ "digits, version 1"."""
        return f"{self.name}, version {self.version}"


def load_suite(name: str) -> Suite:
    """A suite by its name, or one of the user's by FILE.yaml.

    Raises:
        UserError: no such suite, or a file that is none; says which field is wrong.
    """
    own = name.endswith((".yaml", ".yml"))
    path = user_path(name) if own else FOLDER / f"{name}.yaml"
    if not own and name not in names():
        raise UserError(
            f"no suite '{name}'; {nearest(name, names())} (one of your own: FILE.yaml)"
        )
    if not path.exists():
        raise UserError(f"cannot read the suite {path}: no such file")
    return validated(yaml_text.read(path), Suite, str(path))


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
