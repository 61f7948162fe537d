"""A classifier in one safetensors file: encoder, head and how to rebuild them.

An evaluation saves one beside its result, so that the result can be checked again
from the saved files alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field
from torch import Tensor, nn

from zoo import budgets
from zoo.classifier import Classifier
from zoo.encoder import (
    Encoder,
    EncoderSpec,
    Side,
    build_described,
    describing,
    load_weights,
)
from zoo.errors import UserError
from zoo.files import read_tensors, write_tensors
from zoo.own_module import PREFIX, OwnEncoder, bare

METADATA_KEY = "robrep.classifier"
AT_HAND = "(classifier)"
"""The reference of a `Classifier` around a module of the user's."""
Width = Annotated[int, Field(gt=0, le=2**20)]


class Described(BaseModel):
    """How to rebuild a classifier around its weights."""

    classes: Width
    shape: tuple[Side, Side, Side]
    features: Width | None
    """That the head takes; None if the classifier has no head of ours."""
    spec: EncoderSpec | None
    """None for a stranger, which `reference` names."""
    reference: str | None = None


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
    spec = encoder.spec if isinstance(encoder, Encoder) else None
    described = Described(
        classes=classifier.classes,
        shape=classifier.shape,
        features=classifier.linear.in_features if classifier.linear else None,
        spec=spec,
        reference=None if spec else reference,
    )
    metadata = {METADATA_KEY: described.model_dump(mode="json")}
    write_tensors(path, classifier.state_dict(), metadata)


def load_classifier(path: Path, model: nn.Module | None = None) -> Classifier:
    """Rebuilds what `save_classifier` wrote, on the CPU, frozen, in eval mode.

    Args:
        path: The file.
        model: Somebody's module, if the file holds the weights of one: its code is
            taken, in a copy, and the weights of the file.

    Raises:
        UserError: not such a file, weights that do not fit, or a stranger whose own
            loader fails; the weights of a module that is not given.
    """
    tensors, metadata = read_tensors(path)
    if METADATA_KEY not in metadata:
        raise UserError(f"{path} holds no classifier of robrep")
    with describing(path):
        described = Described.model_validate(metadata[METADATA_KEY])
        classifier = _build(described, tensors, model)
    load_weights(classifier, tensors, source=str(path))
    return classifier


def _build(
    described: Described, tensors: Mapping[str, Tensor], model: nn.Module | None
) -> Classifier:
    shape, classes = described.shape, described.classes
    budgets.check_shape(shape)
    head: nn.Module = nn.Identity()
    if described.features is not None:
        with budgets.building(sum(tensor.numel() for tensor in tensors.values())):
            head = nn.Linear(described.features, classes)
    encoder: nn.Module
    spec = described.spec
    if spec is not None and spec.arch.startswith(PREFIX):
        own = _brought(model, spec.arch)
        encoder = OwnEncoder(own, spec, described.features or classes)
    elif described.spec is not None:
        encoder = build_described(described.spec, tensors)
    elif described.reference == AT_HAND:
        encoder = _brought(model, "a classifier of the user's")
    else:
        encoder = _stranger(str(described.reference))
    return Classifier(encoder, head, classes=classes, shape=shape)


def _brought(model: nn.Module | None, what: str) -> nn.Module:
    """A copy of the module that is needed."""
    if model is None:
        raise UserError(
            f"this is {what}, whose code is in no file; from Python, give the module: "
            "verify_folder(folder, model=module)"
        )
    return copy.deepcopy(bare(model)).cpu()


def _stranger(reference: str) -> nn.Module:
    from zoo.nets.robustbench_model import PREFIX as ROBUSTBENCH
    from zoo.nets.robustbench_model import robustbench_model

    # A file of somebody else must not choose what else is read or downloaded here.
    if not reference.startswith(ROBUSTBENCH):
        raise UserError(f"'{reference}' names no ready-made classifier")
    return robustbench_model(reference)


def parameter_count(module: nn.Module) -> int:
    """Number of weights, buffers left out."""
    return sum(p.numel() for p in module.parameters())
