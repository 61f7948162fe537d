"""Modules of other people's: encoders whose code the user holds, and robrep does not.

Their weights can be saved; their code cannot, so whoever checks a result brings it.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from zoo.classifier import Classifier
from zoo.encoder import Encoder, EncoderSpec
from zoo.errors import UserError

PREFIX = "module:"
Kind = Literal["features", "logits"]
FAR = 2.0
"""Deviations by which the mean of normalised images may differ from 0."""
UNIT = 3.0
"""A first batch norm that sees its own kind of images gives a variance near 1; beyond
this factor the pixels are not scaled as in training."""


class Backbone(nn.Module):
    """The user's module, and how wide its output is."""

    def __init__(self, module: nn.Module, dim: int) -> None:
        super().__init__()
        self.module = module
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)  # type: ignore[no-any-return]


class OwnEncoder(Encoder):
    """Normalisation and somebody's module, as an `Encoder`.

    Args:
        module: Called with normalised images (N, C, H, W); gives (N, dim).
        spec: `arch` is "module:" and the name of its class.
        dim: Width of its output.
    """

    backbone: Backbone

    def __init__(self, module: nn.Module, spec: EncoderSpec, dim: int) -> None:
        nn.Module.__init__(self)
        self.spec = spec
        self.backbone = Backbone(module, dim)
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            buffer = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)


def class_name(module: nn.Module) -> str:
    """How records name a module: "module:" and its class."""
    return f"{PREFIX}{type(module).__name__}"


def wrap(
    module: nn.Module,
    x: Tensor,
    *,
    classes: int,
    kind: str | None = None,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
) -> OwnEncoder | Classifier:
    """A module in eval mode as an encoder to probe, or as a ready-made classifier.

    Args:
        module: Not copied; gives features or logits, (N, d).
        x: A few images (N, C, H, W) in [0, 1].
        classes: Of the dataset.
        kind: "features" or "logits". By default an output of another width than the
            number of classes is features.
        mean: Subtracted per channel before the module; by default the module
            normalises by itself.
        std: Divides after that.

    Raises:
        UserError: the pass fails or gives another shape; the output is as wide as
            there are classes and `kind` is not given; mean or std do not fit.
    """
    if kind not in (None, "features", "logits"):
        raise UserError(f"kind must be 'features' or 'logits', not {kind!r}")
    shape = (x.shape[1], x.shape[2], x.shape[3])
    spec = _spec(module, shape, mean, std)
    encoder = OwnEncoder(module.eval(), spec, 0)
    width = encoder.backbone.dim = _width(encoder, x)
    if kind is None and width == classes:
        raise UserError(
            f"{type(module).__name__} gives {width} numbers and there are {classes} "
            "classes: say kind='logits' or kind='features'"
        )
    if kind != "logits":
        return encoder.eval()
    return Classifier(encoder, nn.Identity(), classes=classes, shape=shape)


def _spec(
    module: nn.Module,
    shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> EncoderSpec:
    try:
        spec = EncoderSpec(arch=class_name(module), shape=shape, mean=mean, std=std)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{first['loc'][0]} cannot be {first['input']}: {first['msg']}; pixels lie "
            "in [0, 1]"
        ) from None
    if {len(mean), len(std)} - {1, shape[0]}:
        raise UserError(
            f"mean {mean} and std {std} must each be one number, or one for each of "
            f"{shape[0]} channel(s)"
        )
    return spec


def bare(model: nn.Module) -> nn.Module:
    """Somebody's module, out of what robrep wraps around it."""
    if isinstance(model, Classifier):
        model = model.encoder
    return model.backbone.module if isinstance(model, OwnEncoder) else model


def _width(encoder: OwnEncoder, x: Tensor) -> int:
    name = type(encoder.backbone.module).__name__
    weight = next(encoder.parameters(), x)
    try:
        with torch.no_grad():
            z = encoder.to(weight.device)(x.to(weight.device))
    except Exception as error:  # somebody's code: it may raise anything
        raise UserError(
            f"{name} fails on images of shape {tuple(x.shape)}: {error}"
        ) from None
    if not isinstance(z, Tensor):
        raise UserError(
            f"{name} returns a {type(z).__name__}, not a tensor (N, d); wrap it in a "
            "module that returns the features"
        )
    if z.ndim != 2 or len(z) != len(x):
        raise UserError(
            f"{name} gives shape {tuple(z.shape)} for {len(x)} images, not (N, d); "
            "pool or flatten its output"
        )
    return int(z.shape[1])


def odd_scale(model: nn.Module, x: Tensor, given: str = "mean= and std=") -> str | None:
    """A warning if images reach a module scaled unlike in training.

    Args:
        model: In eval mode, on any device.
        x: Some images (N, C, H, W) of the dataset, in [0, 1].
        given: What the user may have told wrong, as he writes it.
    """
    ratio = _variance_ratio(model, x)
    if ratio is None:  # nothing in the module knows what it saw in training
        return _odd_normalised(model, x, given)
    if 1 / UNIT <= ratio <= UNIT:
        return None
    return (
        f"At the module's first batch norm these images vary {ratio:.2g} times as much "
        f"as those it was trained on; {given} may not be the module's own."
    )


def tells_scale(model: nn.Module) -> bool:
    """True if `odd_scale` can compare with training: there is a batch norm."""
    return _first_norm(model) is not None


def _first_norm(model: nn.Module) -> nn.BatchNorm2d | None:
    """With statistics of its training; None without one."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return norms[0] if norms and norms[0].running_var is not None else None


def _odd_normalised(model: nn.Module, x: Tensor, given: str) -> str | None:
    """Told mean and deviation are those of the training images, or else not its own."""
    encoder = model.encoder if isinstance(model, Classifier) else model
    if not isinstance(encoder, OwnEncoder) or encoder.spec.std == (1.0,):
        return None
    z = (x - encoder.mean.cpu()) / encoder.std.cpu()
    centre, spread = float(z.mean()), float(z.std())
    if abs(centre) <= FAR and 1 / UNIT <= spread <= UNIT:
        return None
    return (
        f"With {given} these images have mean {centre:.2g} and standard "
        f"deviation {spread:.2g}, not about 0 and 1; {given} may not be the "
        "module's own."
    )


def _variance_ratio(model: nn.Module, x: Tensor) -> float | None:
    """At the first batch norm, to what that saw in training; None without one."""
    norm, seen = _first_norm(model), list[Tensor]()
    if norm is None or norm.running_var is None:
        return None
    usual = norm.running_var
    hook = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        with torch.no_grad():
            model(x.to(usual.device))
    finally:
        hook.remove()
    if not seen:
        return None
    variance = seen[0].var(dim=(0, 2, 3)) / (usual + norm.eps)
    return float(variance.median())
