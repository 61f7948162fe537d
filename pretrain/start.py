"""The encoder that a run starts from: found, checked, and what is known of it.

References are those of `robrep-eval --model`. What comes out of the run says on its
card what went in: base, licence, labels, data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.finite import first_broken
from pretrain.precision import precision
from pretrain.recipe import INIT, InitSettings, Recipe
from robrep_eval.probes.linear import check_shape
from robrep_eval.run.request import NORMALIZATIONS, read_normalization
from zoo.classifier import Classifier
from zoo.collection.licences import forbids_sharing, licence_of
from zoo.collection.references import Loaded, LoadOptions, load, weights_file
from zoo.datasets.base import Dataset
from zoo.datasets.names import recorded_name
from zoo.encoder import Encoder, fingerprint
from zoo.errors import UserError
from zoo.own_module import odd_scale

LOOK = 8
"""Images that an encoder is tried on."""
PREFIXES = ("zoo:", "timm:", "hf://", "hf-hub:", "robustbench:")


@dataclass(frozen=True, kw_only=True)
class Start:
    """An encoder to start from, in eval mode, and what the card will say of it."""

    encoder: Encoder
    reference: str
    licence: str
    """"unknown" where nothing says."""
    labels: bool
    extra_data: bool
    notes: tuple[str, ...] = ()
    """What the user is to know before the training begins."""

    def begins(self, recipe: Recipe) -> bool:
        """True if the student starts as this encoder; else it follows it."""
        spec = self.encoder.spec
        if recipe.arch == INIT:
            return True
        if recipe.arch != spec.arch:
            return False
        return all(spec.options.get(k) == v for k, v in recipe.arch_options.items())

    def recorded(self) -> dict[str, Any]:
        """For the card, in place of the settings."""
        return {
            "model": self.reference,
            "arch": self.encoder.spec.arch,
            "weights": fingerprint(self.encoder),
            "licence": self.licence,
            "labels": self.labels,
            "extra_data": self.extra_data,
        }


def find_start(recipe: Recipe, data: Dataset, device: torch.device) -> Start | None:
    """The encoder of `init`, or None.

    Args:
        recipe: Validated.
        data: Training images; a few of them are passed through the encoder.
        device: Where it will be trained, for passes in the recipe's precision.

    Raises:
        UserError: a reference that leads nowhere, to a classifier whose features robrep
            cannot tell from its logits, to one that is random in eval mode, has no
            gradient, or takes other images.
    """
    settings = recipe.init
    if settings is None:
        return None
    loaded = load(settings.model, _options(settings, recipe, data))
    encoder = _encoder(loaded)
    check_shape(encoder, data)
    x = data.images(slice(0, LOOK))
    check_trainable(encoder, x, settings.model)
    _check_precision(encoder, x, recipe, device)
    labels, extra, guessed = _training(settings, loaded, data)
    licence = settings.licence or licence_of(settings.model) or "unknown"
    told = (
        _about_licence(settings.model, licence),
        guessed,
        odd_scale(encoder, data.images(slice(0, 64)), _normalisation(settings)),
    )
    return Start(
        encoder=encoder.eval(),
        reference=settings.model,
        licence=licence,
        labels=labels,
        extra_data=extra,
        notes=(*loaded.notes, *filter(None, told)),
    )


def _normalisation(settings: InitSettings) -> str:
    """What is wrong, perhaps, if pixels reach the encoder in another scale."""
    return "--normalize" if _undescribed(settings.model) else "its normalisation"


def check_trainable(encoder: Encoder, x: Tensor, name: str) -> None:
    """Raises `UserError` if the encoder cannot be fine-tuned against an adversary.

    Args:
        encoder: Put into eval mode.
        x: A few images (n, C, H, W) in [0, 1].
        name: Of the encoder, in messages.
    """
    encoder.eval()
    if not any(p.is_floating_point() for p in encoder.parameters()):
        raise UserError(f"{name} has no weights that could be trained")
    with torch.no_grad():
        first, second = encoder(x), encoder(x)
    if not bool(first.isfinite().all()):
        where = first_broken(encoder, x)
        raise UserError(f"{name} gives NaN or infinite features, first in '{where}'")
    if not torch.allclose(
        first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max())
    ):
        raise UserError(
            f"{name} gives other features for the same images a second time: there is "
            "dropout or other chance in eval mode, and no distance to them means "
            "anything; switch it off in the model"
        )
    # Not the length of the features, which has no gradient where they are normalised.
    direction = torch.linspace(-1, 1, first.shape[1])
    leaf = x.clone().requires_grad_()
    try:
        (gradient,) = torch.autograd.grad((encoder(leaf) * direction).sum(), leaf)
    except RuntimeError:
        gradient = torch.zeros_like(x)
    if not bool(gradient.isfinite().all()) or not bool(gradient.any()):
        raise UserError(
            f"{name} cannot be differentiated: its features have no gradient with "
            "respect to the pixels, so no attack can be trained against"
        )


def _check_precision(
    encoder: Encoder, x: Tensor, recipe: Recipe, device: torch.device
) -> None:
    if recipe.precision == "fp32":
        return
    encoder.to(device)
    with precision(recipe, device):
        where = first_broken(encoder, x.to(device))
    encoder.cpu()
    if where is not None:
        raise UserError(
            f"layer '{where}' of the encoder gives NaN or infinity in "
            f"{recipe.precision}, and not in fp32: set precision to fp32"
        )


def _options(settings: InitSettings, recipe: Recipe, data: Dataset) -> LoadOptions:
    """Those of a checkpoint without description, or none."""
    arch = settings.arch
    if _undescribed(settings.model):
        arch = arch or (None if recipe.arch == INIT else recipe.arch)
        if arch is None:
            raise UserError(
                f"{settings.model} does not say what it holds; name its architecture "
                "with --arch"
            )
        if settings.normalize is None:
            raise UserError(
                f"{settings.model} does not say how its pixels were normalised, and "
                "the wrong way would train without complaint: --normalize "
                f"{', '.join(sorted(NORMALIZATIONS))} or MEAN/STD"
            )
    mean, std = read_normalization(settings.normalize or "none")
    own = settings.arch_options
    if arch == recipe.arch:
        own = {**recipe.arch_options, **own}
    return LoadOptions(
        shape=data.shape,
        classes=len(data.classes),
        arch=arch,
        arch_options=tuple(own.items()) if arch else (),
        mean=mean,
        std=std,
        prefix=settings.prefix,
        kind="features" if arch else None,
    )


def _undescribed(reference: str) -> bool:
    """A file that torch wrote: weights by name and nothing about them."""
    if reference.startswith(PREFIXES):
        return False
    path = weights_file(reference)
    return path.is_file() and path.suffix != ".safetensors"


def _encoder(loaded: Loaded) -> Encoder:
    if loaded.encoder is not None:
        return loaded.encoder
    inside = loaded.classifier.encoder if loaded.classifier else None
    if isinstance(loaded.classifier, Classifier) and isinstance(inside, Encoder):
        return inside
    raise UserError(
        f"{loaded.reference} is a classifier of another library, of which robrep knows "
        "the logits and not the features; save the state dict of its network and "
        "pass that file with --arch and --normalize"
    )


def _training(
    settings: InitSettings, loaded: Loaded, data: Dataset
) -> tuple[bool, bool, str | None]:
    """Labels, extra data, and a remark where they are assumed."""
    known = loaded.training
    labels, extra = settings.labels, settings.extra_data
    if known is not None:
        labels = known.labels if labels is None else labels
        beyond = known.extra_data or known.dataset != recorded_name(data.name)
        extra = beyond if extra is None else extra
    guessed = None
    if labels is None or extra is None:
        guessed = (
            f"What {settings.model} was trained on is not known here: the card says "
            "with labels and data beyond this set; if that is wrong, "
            "-o init.labels=false, -o init.extra_data=false"
        )
    return (
        True if labels is None else labels,
        True if extra is None else extra,
        guessed,
    )


def _about_licence(reference: str, licence: str) -> str | None:
    if forbids_sharing(licence):
        return (
            f"The licence of {reference}, {licence}, forbids passing changed weights "
            "on: what this run makes cannot be published"
        )
    if licence == "unknown":
        return (
            f"The licence of {reference} is not known here: find it before you publish "
            "what this run makes (-o init.licence=NAME)"
        )
    return None
