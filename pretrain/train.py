"""From a recipe to a trained encoder: data, teacher, session.

The loop itself is `pretrain.session`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from pretrain import distributed, methods
from pretrain.build import check, check_clusters, check_start, find_teacher
from pretrain.data import divide
from pretrain.leader import LeadingSession
from pretrain.precision import slowness
from pretrain.recipe import Recipe, merge, validate
from pretrain.run_folder import TrainingFolder
from pretrain.session import Session, Surroundings
from pretrain.start import Start, find_start
from zoo.datasets import load as load_dataset
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.locks import in_use
from zoo.threads import fitting_threads, network_work
from zoo.writable import check_writable

__all__ = ["Surroundings", "train"]


def train(
    recipe: Recipe, folder: Path, surroundings: Surroundings | None = None
) -> Path:
    """Trains what the recipe says, or goes on where an earlier call was cut off.

    Args:
        recipe: Validated; its teacher, if any, is trained first.
        folder: The run folder; see `pretrain.run_folder`.
        surroundings: Device, data folder, progress.

    Returns:
        The folder of the last encoder, RUN/last.

    Raises:
        UserError: settings that do not fit each other, the data or the run folder.
        RobrepError: the loss is not finite; the last good checkpoint stays.
    """
    around = surroundings or Surroundings()
    if slow := slowness(recipe, torch.device(around.device)):
        around.report.say(slow)
    return _train_alone(recipe, folder, around)


def _train_alone(recipe: Recipe, folder: Path, around: Surroundings) -> Path:
    """As `train`, the only run in that folder."""
    with ExitStack() as stack:
        if distributed.leads():  # the others are of the same run
            check_writable(folder, "choose another folder with --output")
            stack.enter_context(in_use(folder, wait=around.wait))
        return _train(recipe, folder, around)


def _train(recipe: Recipe, folder: Path, around: Surroundings) -> Path:
    data = training_images(recipe, around)
    for note in data.notes:
        around.report.say(note)
    check(recipe, data)
    parts = divide(data, recipe)
    check_clusters(recipe, parts.train)
    run = TrainingFolder(folder, recipe)
    start = find_start(recipe, parts.train, torch.device(around.device))
    check_start(recipe, start, data.shape)
    for note in start.notes if start else ():
        around.report.say(note)
    teacher, teacher_passes = _teacher(recipe, run, around, start)
    kind = LeadingSession if distributed.leads() else Session
    session = kind(recipe, parts, run, around, teacher, teacher_passes, start)
    run.create(recipe)
    with fitting_threads(network_work(session.method.encoder, data.shape)):
        session.resume()
        return session.run_to_the_end()


def training_images(recipe: Recipe, around: Surroundings) -> Dataset:
    """All of them, listed once the recipe's method is known to be able to use them.

    Raises:
        UserError: as `pretrain.methods.options` and `zoo.datasets.load`.
    """
    methods.options(recipe)
    found = load_dataset(
        recipe.data, "train", data_dir=around.data_dir, called=recipe.dataset_name
    )
    return found.read_by(around.workers)


def _teacher(
    recipe: Recipe, run: TrainingFolder, around: Surroundings, start: Start | None
) -> tuple[Encoder | None, float]:
    """The recipe's teacher: found, or trained first in RUN/teacher.

    A method that needs one and is told none has the encoder that the run starts from.
    """
    if recipe.teacher is None:
        needed = methods.get(recipe.method).needs_teacher(methods.options(recipe))
        return (start.encoder if start and needed else None), 0.0
    if isinstance(recipe.teacher, str):
        return find_teacher(recipe.teacher)
    chosen = teacher_recipe(recipe, recipe.teacher)
    run.create(recipe)
    result = _train_alone(chosen, run.path / "teacher", around)
    return find_teacher(str(result))


def teacher_recipe(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Of a teacher that is trained first: the recipe's own, but for `settings`.

    Raises:
        UserError: no method is named.
    """
    own = recipe.model_dump(
        mode="json",
        exclude={"teacher", "options", "epochs", "passes", "stable", "accumulate"},
    )
    change = {"name": f"{recipe.name}-teacher", **settings}
    if "method" not in change:
        raise UserError("the settings of a teacher must name its method")
    return validate(merge(own, change))
