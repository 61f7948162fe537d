"""A classifier in one safetensors file: encoder, head and how to rebuild them.

An evaluation saves one beside its result, so that the result can be checked again
from the saved files alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from zoo.classifier import Classifier
from zoo.encoder import Encoder, EncoderSpec, load_weights
from zoo.errors import UserError
from zoo.files import read_tensors, write_tensors

METADATA_KEY = "robrep.classifier"


def save_classifier(
    classifier: Classifier, path: Path, *, reference: str | None = None
) -> None:
    """Writes weights and description, atomically.

    Args:
        classifier: With an `Encoder` inside, or a stranger.
        path: Ends in .safetensors.
        reference: For a stranger that only its own loader can rebuild, that reference
            (`robustbench:ID`).
    """
    encoder = classifier.encoder
    described: dict[str, Any] = {
        "classes": classifier.classes,
        "shape": classifier.shape,
        "features": classifier.linear.in_features if classifier.linear else None,
        "spec": encoder.spec.model_dump(mode="json")
        if isinstance(encoder, Encoder)
        else None,
        "reference": None if isinstance(encoder, Encoder) else reference,
    }
    write_tensors(path, classifier.state_dict(), {METADATA_KEY: described})


def load_classifier(path: Path) -> Classifier:
    """Rebuilds what `save_classifier` wrote, on the CPU, frozen, in eval mode.

    Raises:
        UserError: not such a file, weights that do not fit, or a stranger whose own
            loader fails.
    """
    tensors, metadata = read_tensors(path)
    described = metadata.get(METADATA_KEY)
    if not isinstance(described, dict):
        raise UserError(f"{path} holds no classifier of robrep")
    try:
        classifier = _build(described)
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{path} has a broken description: {error}") from None
    load_weights(classifier, tensors, source=str(path))
    return classifier


def _build(described: dict[str, Any]) -> Classifier:
    shape = tuple(described["shape"])
    classes = int(described["classes"])
    head: nn.Module = nn.Identity()
    if described["features"] is not None:
        head = nn.Linear(int(described["features"]), classes)
    if described["spec"] is not None:
        encoder: nn.Module = Encoder(EncoderSpec.model_validate(described["spec"]))
    else:
        encoder = _stranger(str(described["reference"]), shape, classes)
    return Classifier(encoder, head, classes=classes, shape=shape)


def _stranger(reference: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    from zoo.references import LoadOptions, load

    found = load(reference, LoadOptions(shape=shape, classes=classes)).classifier
    if found is None:
        raise UserError(f"'{reference}' names no ready-made classifier")
    return found.encoder


def parameter_count(module: nn.Module) -> int:
    """Number of weights, buffers left out."""
    return sum(p.numel() for p in module.parameters())
