"""The registry of backbones: names, and where the code that builds them lies.

Listing it imports no torch; `build` imports the one module it needs. Other packages
add rows through the entry point group `robrep.encoders`, whose entries name an
`Architecture`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from zoo import budgets
from zoo.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import nn

TIMM, TRANSFORMERS, OPEN_CLIP = FOREIGN = ("timm:", "transformers:", "open_clip:")
"""Models of other libraries, built by those from options that robrep knows."""
LINEAR_END = "linear_end"
"""Option of every architecture: features that a last linear layer lets through."""
WORD = re.compile(r"[A-Za-z0-9_]{0,32}")
"""What an option may say in letters: never a path, an address or code."""
LONGEST = 64
"""Numbers in a list."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to build one backbone."""

    name: str
    build: str
    """"module:function"; called with `in_channels` and the options, returns an
    nn.Module that maps normalised images (N, C, H, W) to features (N, d)."""
    summary: str
    options: dict[str, Any] = field(default_factory=dict)
    """Options with their defaults; each is recorded with every checkpoint."""


_SMALL: dict[int, dict[str, Any]] = {
    8: {"widths": [16, 32, 64], "blocks": [1, 1, 1], "stem_stride": 1},
    28: {"widths": [16, 32, 64, 128], "blocks": [1, 1, 1, 1], "stem_stride": 1},
    32: {"widths": [32, 64, 128], "blocks": [1, 1, 1], "stem_stride": 2},
}
"""Options of the small ResNets, by the side of their images."""

_BUILT_IN = (
    Architecture(
        name="resnet18",
        build="zoo.nets.resnet:resnet18",
        summary="ResNet-18, 3x3 stem for 32x32 images; 512 features",
        options={"stem": "cifar", "stem_padding": 1},
    ),
    Architecture(
        name="preact_resnet18",
        build="zoo.nets.resnet:preact_resnet18",
        summary="pre-activation ResNet-18 for 32x32 images; 512 features",
    ),
    Architecture(
        name="wide_resnet_28_10",
        build="zoo.nets.resnet:wide_resnet",
        summary="WideResNet-28-10 for 32x32 images; 640 features",
        options={"depth": 28, "widen": 10},
    ),
    Architecture(
        name="resnet_s8",
        build="zoo.nets.small:small_resnet",
        summary="small ResNet for 8x8 images (digits), 0.8 million multiply-adds",
        options=_SMALL[8],
    ),
    Architecture(
        name="resnet_s28",
        build="zoo.nets.small:small_resnet",
        summary="small ResNet for 28x28 images, 13 million multiply-adds",
        options=_SMALL[28],
    ),
    Architecture(
        name="resnet_s32",
        build="zoo.nets.small:small_resnet",
        summary="small ResNet for 32x32 images, 12 million multiply-adds",
        options=_SMALL[32],
    ),
    *(
        Architecture(
            name=f"resnet_s{side}_grid",
            build="zoo.nets.small:small_resnet",
            summary=f"resnet_s{side} with features of 2 x 2 cells, four times as many",
            options={**options, "grid": 2},
        )
        for side, options in _SMALL.items()
    ),
    Architecture(
        name="lipschitz_dense",
        build="zoo.nets.lipschitz:lipschitz_dense",
        summary="dense layers and MaxMin, for certificates from the weights",
        options={"size": 8, "widths": [256, 256, 128]},
    ),
)


@cache
def registry() -> dict[str, Architecture]:
    """All known architectures by name, those of other packages included."""
    found = {row.name: row for row in _BUILT_IN}
    for entry in entry_points(group="robrep.encoders"):
        row = entry.load()
        if row.name in found:
            raise UserError(
                f"architecture '{row.name}' of entry point '{entry.value}' already "
                "exists; give it another name"
            )
        found[row.name] = row
    return found


def get(name: str) -> Architecture:
    """The row called `name`; raises `UserError` with the nearest names."""
    try:
        return registry()[name]
    except KeyError:
        raise UserError(
            f"unknown architecture '{name}'; {nearest(name, registry())} "
            "(timm:NAME builds any model of timm)"
        ) from None


def resolve_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Defaults of the architecture overlaid with `options`.

    Everything that describes an encoder passes here, files of other people too.

    Raises:
        UserError: an unknown name or key, or a value that is no number, switch, word,
            or list of those.
    """
    if name.startswith(FOREIGN):
        _check_foreign(name, options.keys() - {LINEAR_END})
        _check_values(name, options)
        _check_numbers(name, options, _foreign_numbers(name))
        return dict(options)
    known = get(name).options
    for key in options:
        if key not in known and key != LINEAR_END:
            raise UserError(
                f"architecture '{name}' has no option '{key}'; {nearest(key, known)}"
            )
    _check_values(name, options)
    numbers = {key for key, value in known.items() if not _switches(value)}
    _check_numbers(name, options, numbers)
    return {**known, **options}


def _check_foreign(name: str, options: Collection[str]) -> None:
    """Names and options of models of other libraries, by lists of our own."""
    from zoo.nets import hub_options, timm_options

    library, _, rest = name.partition(":")
    if name.startswith(TIMM):
        timm_options.check_name(rest)
        timm_options.check_options(options)
        return
    if name.startswith(TRANSFORMERS):
        hub_options.check_kind(rest)
    known = (
        hub_options.OPEN_CLIP
        if name.startswith(OPEN_CLIP)
        else hub_options.TRANSFORMERS
    )
    hub_options.check_options(options, known, f"the image encoders of {library}")


def _check_values(name: str, options: dict[str, Any]) -> None:
    for key, value in options.items():
        if not _plain(value):
            raise UserError(
                f"option '{key}' of architecture '{name}' must be a number of at "
                f"most {budgets.OPTION}, true, false, a word, or a list of at most "
                f"{LONGEST} of those"
            )


def _foreign_numbers(name: str) -> Collection[str]:
    """Options of models of other libraries that are known to be no switches."""
    from zoo.nets import timm_options

    return timm_options.NUMBERS if name.startswith(TIMM) else {"resize"}


def _check_numbers(name: str, options: dict[str, Any], names: Collection[str]) -> None:
    """True and false are no numbers, which to Python they are."""
    for key, value in options.items():
        if key in (LINEAR_END, *names) and _switches(value):
            raise UserError(
                f"option '{key}' of architecture '{name}' is no switch: it takes "
                f"numbers or a word, not {value!r}"
            )


def _switches(value: object) -> bool:
    """Whether a value is true or false, or a list that holds one of them."""
    many = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(one, bool) for one in many)


def _plain(value: object, depth: int = 2) -> bool:
    """Whether a value is a number, a switch, a word, or a short list of those."""
    if isinstance(value, list | tuple):
        return (
            depth > 0
            and len(value) <= LONGEST
            and all(_plain(part, depth - 1) for part in value)
        )
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) <= budgets.OPTION
    return value is None


def build(name: str, shape: tuple[int, int, int], options: dict[str, Any]) -> nn.Module:
    """Builds the backbone with fresh weights.

    Args:
        name: A registered name, or one of another library, as `timm:NAME` (no
            weights are downloaded).
        shape: (C, H, W) of the images.
        options: As returned by `resolve_options`.

    Returns:
        A module with an attribute `dim`, the number of features.

    Raises:
        UserError: options that do not fit, `linear_end` among them.
    """
    if LINEAR_END in options:
        from zoo.nets.linear_end import LinearEnd

        rest = {key: value for key, value in options.items() if key != LINEAR_END}
        return LinearEnd(build(name, shape, rest), options[LINEAR_END])
    if name.startswith(FOREIGN):
        library, _, model = name.partition(":")
        made: nn.Module = getattr(
            import_module(f"zoo.nets.{library}_backbone"), f"{library}_backbone"
        )(model, shape, **options)
        return made
    module, function = get(name).build.split(":")
    backbone: nn.Module = getattr(import_module(module), function)(
        in_channels=shape[0], **options
    )
    return backbone
