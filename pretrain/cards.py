"""What a run says about the encoder it made."""

from __future__ import annotations

from typing import Any

from pretrain import methods
from pretrain.build import Workload, augmentation
from pretrain.recipe import Recipe
from pretrain.start import Start
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
    start: Start | None = None,
) -> Training:
    """How an encoder was made, after `epoch` epochs: every setting in force.

    Labels and data that the encoder it started from has seen, it has seen too.
    """
    kind = methods.get(recipe.method)
    in_force = {
        **recipe.model_dump(mode="json"),
        "options": methods.options(recipe).model_dump(mode="json"),
        "augment": augmentation(recipe, data).model_dump(mode="json"),
    }
    if start is not None:
        in_force["init"] = start.recorded()
    if not data.labelled:
        in_force["images"] = _images(data.whole())
    training = Training(
        method=recipe.method,
        dataset=data.name,
        threat=recipe.threat if kind.adversarial else None,
        labels=kind.labels or (start is not None and start.labels),
        extra_data=start is not None and start.extra_data,
        command=command,
        recipe=in_force,
        seed=recipe.seed,
        epochs=epoch,
        passes=plan.after(epoch) + plan.end_passes,
        seconds=round(seconds, 1),
        versions={"robrep": __version__, **versions(PACKAGES)},
    )
    return public_training(training)


def _images(data: Dataset) -> dict[str, Any]:
    """Of images that no label and no published split tells from others."""
    digest = None if data.hash_files is None else data.hash_files()
    return {"count": len(data), "labels": False, "files_sha256": digest}


def describe(training: Training) -> str:
    """One sentence for people."""
    threat = f" against {training.threat}" if training.threat else ""
    labels = "with labels" if training.labels else "without labels"
    base, images = training.recipe.get("init"), training.recipe.get("images")
    shown = ""
    if images:  # which have no labels, whatever the encoder had seen before
        shown = f" ({images['count']} images without labels)"
        labels += " in the encoder it started from" * training.labels
    begun = f" from {base['model']}" if isinstance(base, dict) else ""
    return (
        f"{training.method} pretrained on {training.dataset}{shown}{begun}{threat}, "
        f"{labels}, "
        f"{training.epochs} epochs, {training.passes:.4g} passes per image"
    )
