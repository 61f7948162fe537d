"""The model that a request means: loaded or wrapped, and whether the images suit it."""

from __future__ import annotations

import copy

from torch import nn

from robrep_eval.probes.linear import ProbeSettings
from robrep_eval.run.request import Request
from zoo.classifier import Classifier, check_logits
from zoo.classifier_file import AT_HAND
from zoo.collection.references import Loaded, LoadOptions, check_unused, load
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.own_module import class_name, wrap


def load_model(request: Request, data: Dataset) -> Loaded:
    """The encoder or classifier of a request, for images like `data`.

    Raises:
        UserError: no such model, one that cannot be read or wrapped, or an option that
            it has no use for.
    """
    if not isinstance(request.model, str):
        check_unused(
            arch=request.arch, arch_options=request.arch_options, prefix=request.prefix
        )
    if isinstance(request.model, Encoder | Classifier):
        check_unused(kind=request.kind, **_normalisation(request))
    if isinstance(request.model, Encoder):
        return Loaded(reference="(encoder)", encoder=request.model)
    if isinstance(request.model, Classifier):
        return Loaded(reference=AT_HAND, classifier=request.model)
    if isinstance(request.model, nn.Module):
        return _own(request, request.model, data)
    if not isinstance(request.model, str):
        raise UserError(
            f"the model is a {type(request.model).__name__}; give a reference such as "
            "'zoo:NAME' or a torch module"
        )
    options = LoadOptions(
        shape=data.shape,
        classes=len(data.classes),
        arch=request.arch,
        arch_options=request.arch_options,
        prefix=request.prefix,
        kind=request.kind,
        **_normalisation(request),
    )
    return load(request.model, options)


def _normalisation(request: Request) -> dict[str, tuple[float, ...]]:
    """Mean and deviation, such as change nothing where they are not said."""
    mean = (0.0,) if request.mean is None else request.mean
    return {"mean": mean, "std": (1.0,) if request.std is None else request.std}


def _own(request: Request, module: nn.Module, data: Dataset) -> Loaded:
    """Somebody's module, in a copy: what is frozen here stays free there."""
    made = wrap(
        copy.deepcopy(module),
        data.images(slice(2)),
        classes=len(data.classes),
        kind=request.kind,
        **_normalisation(request),
    )
    reference = class_name(module)
    if isinstance(made, Classifier):
        return Loaded(reference=reference, classifier=made)
    return Loaded(reference=reference, encoder=made)


def check_ready_made(request: Request, loaded: Loaded, data: Dataset) -> None:
    """A classifier must take these images and know these classes."""
    found = loaded.classifier
    if found is None:
        return
    if found.shape != data.shape:
        raise UserError(
            f"the classifier takes images of shape {found.shape}, but {data.name} has "
            f"{data.shape}"
        )
    if found.classes != len(data.classes):
        raise UserError(
            f"the classifier has {found.classes} classes, but {data.name} has "
            f"{len(data.classes)}"
        )
    check_logits(found, data.images([0]))
    if request.probe != ProbeSettings():
        raise UserError(
            f"'{loaded.reference}' is a ready-made classifier, which no probe is "
            "fitted on; leave --probe, --labels and --l2 out"
        )
