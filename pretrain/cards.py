"""What a run says about the encoder it made."""

from __future__ import annotations

from pretrain import methods
from pretrain.build import Workload, augmentation
from pretrain.recipe import Recipe
from robrep_eval.run.provenance import versions
from zoo._version import __version__
from zoo.collection.public import public_training
from zoo.datasets.base import Dataset
from zoo.records import Training

PACKAGES = ("torch", "kornia", "timm")
"""What the weights depend on beside robrep."""


def training_record(
    recipe: Recipe,
    data: Dataset,
    plan: Workload,
    epoch: int,
    seconds: float,
    command: str | None,
) -> Training:
    """How an encoder was made, after `epoch` epochs: every setting in force."""
    kind = methods.get(recipe.method)
    in_force = {
        **recipe.model_dump(mode="json"),
        "options": methods.options(recipe).model_dump(mode="json"),
        "augment": augmentation(recipe, data).model_dump(mode="json"),
    }
    training = Training(
        method=recipe.method,
        dataset=data.name,
        threat=recipe.threat if kind.adversarial else None,
        labels=kind.labels,
        command=command,
        recipe=in_force,
        seed=recipe.seed,
        epochs=epoch,
        passes=plan.after(epoch) + plan.end_passes,
        seconds=round(seconds, 1),
        versions={"robrep": __version__, **versions(PACKAGES)},
    )
    return public_training(training)


def describe(training: Training) -> str:
    """One sentence for people."""
    threat = f" against {training.threat}" if training.threat else ""
    labels = "with labels" if training.labels else "without labels"
    return (
        f"{training.method} pretrained on {training.dataset}{threat}, {labels}, "
        f"{training.epochs} epochs, {training.passes:.4g} passes per image"
    )
