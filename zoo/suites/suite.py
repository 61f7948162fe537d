"""A suite: downstream tasks on which encoders of one kind are measured, in a file.

The file is versioned: a task that changes, comes or goes is a new version, so that a
mean over tasks always says over which.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from zoo import datasets, yaml_text
from zoo.errors import UserError, nearest
from zoo.label_budget import LabelBudget
from zoo.paths import safe_name, user_path
from zoo.records import Name, Record
from zoo.schema import Size, Version, validated
from zoo.suites import FOLDER, names
from zoo.threat import Norm, parse_eps

FEWEST = 2
"""Tasks of a suite."""
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
