"""From a recipe to a trained encoder: data, teacher, session.

The loop itself is `pretrain.session`.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from pretrain import distributed
from pretrain.build import check, check_clusters, find_teacher
from pretrain.data import divide
from pretrain.leader import LeadingSession
from pretrain.recipe import Recipe, merge, validate
from pretrain.run_folder import TrainingFolder
from pretrain.session import Session, Surroundings
from zoo.datasets import load as load_dataset
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.locks import in_use
from zoo.threads import fitting_threads, network_work

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
    with ExitStack() as stack:
        if distributed.leads():  # the others are of the same run
            stack.enter_context(in_use(folder, wait=around.wait))
        return _train(recipe, folder, around)


def _train(recipe: Recipe, folder: Path, around: Surroundings) -> Path:
    data = load_dataset(
        recipe.data, "train", data_dir=around.data_dir, called=recipe.dataset_name
    )
    for note in data.notes:
        around.report.say(note)
    check(recipe, data)
    parts = divide(data, recipe)
    check_clusters(recipe, parts.train)
    run = TrainingFolder(folder, recipe)
    teacher, teacher_passes = _teacher(recipe, run, around)
    kind = LeadingSession if distributed.leads() else Session
    session = kind(recipe, parts, run, around, teacher, teacher_passes)
    run.create(recipe)
    with fitting_threads(network_work(session.method.encoder, data.shape)):
        session.resume()
        return session.run_to_the_end()


def _teacher(
    recipe: Recipe, run: TrainingFolder, around: Surroundings
) -> tuple[Encoder | None, float]:
    """The recipe's teacher: found, or trained first in RUN/teacher."""
    if recipe.teacher is None:
        return None, 0.0
    if isinstance(recipe.teacher, str):
        return find_teacher(recipe.teacher)
    own = recipe.model_dump(
        mode="json", exclude={"teacher", "options", "epochs", "passes", "stable"}
    )
    change = {"name": f"{recipe.name}-teacher", **recipe.teacher}
    if "method" not in change:
        raise UserError("the settings of a teacher must name its method")
    chosen = validate(merge(own, change))
    run.create(recipe)
    result = train(chosen, run.path / "teacher", around)
    return find_teacher(str(result))
