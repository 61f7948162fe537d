"""What is published of a record: all of it but where things lie on this machine."""

from __future__ import annotations

import shlex
from typing import Any

from zoo.datasets.names import recorded_name
from zoo.plain_text import recorded_command, without_folders
from zoo.records import Card, Result, Training

REFERENCES = ("zoo:", "timm:", "robustbench:", "hf://", "hf-hub:")
"""Of models that have a name for everybody."""


def public_card(card: Card) -> Card:
    """A card of an encoder that lies here."""
    named = recorded_name(card.training.dataset)
    described = card.description.replace(card.training.dataset, named)
    training = public_training(card.training)
    return card.model_copy(update={"training": training, "description": described})


def public_training(training: Training) -> Training:
    """Names in place of paths."""
    command = training.command
    update = {
        "dataset": recorded_name(training.dataset),
        "recipe": _recipe(training.recipe),
        "command": None
        if command is None
        else shlex.join(recorded_command(_words(command))),
    }
    return training.model_copy(update=update)


def public_result(result: Result, card: Card) -> Result:
    """A result of the encoder that the card describes.

    What the result says of the training stays as it is unless it is the card's.
    """
    model, probe, data = result.model, result.probe, result.dataset
    update: dict[str, Any] = {}
    training = model.training
    if training and public_training(training) == public_training(card.training):
        update["training"] = card.training
    if "/" in model.reference and not model.reference.startswith(REFERENCES):
        update["reference"] = card.name
    if probe is not None:
        name, _, split = probe.train.rpartition("/")
        train = f"{recorded_name(name)}/{split}"
        probe = probe.model_copy(update={"train": train})
    command = recorded_command(result.provenance.command)
    return result.model_copy(
        update={
            "model": model.model_copy(update=update),
            "probe": probe,
            "dataset": data.model_copy(update={"name": recorded_name(data.name)}),
            "provenance": result.provenance.model_copy(update={"command": command}),
            "notes": [_sentence(note) for note in result.notes],
        }
    )


def _recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """Settings in which a dataset and a teacher may be paths; a teacher's own too."""
    public = dict(recipe)
    for key, value in recipe.items():
        if isinstance(value, dict):
            public[key] = _recipe(value)
        elif key == "data" and isinstance(value, str):
            public[key] = recorded_name(value)
        elif isinstance(value, str) and not value.startswith(REFERENCES):
            public[key] = without_folders(value)
    return public


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a quote that does not end
        return command.split()


def _sentence(note: str) -> str:
    return " ".join(without_folders(word) for word in note.split(" "))
