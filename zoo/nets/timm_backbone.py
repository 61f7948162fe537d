"""Any timm model as a backbone that returns pooled features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from zoo.errors import UserError, nearest
from zoo.nets.resized import RESAMPLING, Resized
from zoo.nets.timm_options import check_name, check_options
from zoo.nets.width import measured_width

SAFETENSORS = "model.safetensors"


def timm_backbone(
    name: str,
    shape: tuple[int, int, int],
    *,
    resize: int | None = None,
    resample: str = "bilinear",
    **options: Any,
) -> Resized:
    """Creates `name` with fresh weights; nothing is read or downloaded.

    Args:
        name: timm's `architecture` or `architecture.tag`.
        shape: (C, H, W) of the images.
        resize: See `Resized`.
        resample: See `Resized`.
        options: Of the architecture; see `zoo.nets.timm_options`.

    Raises:
        UserError: an unknown name (with the nearest), or an option that is not the
            architecture's own, or images that it cannot take.
    """
    check_options(options)
    backbone = Resized(_create(name, shape[0], **options), resize, resample)
    backbone.dim = measured_width(backbone, shape, f"timm:{name}")
    return backbone


def pretrained_model(
    name: str, in_channels: int, weights: Path, classes: int, **options: Any
) -> nn.Module:
    """The same model, not yet behind a resize, with the weights of a file.

    timm itself brings them to its names of today and to the number of channels.

    Args:
        name: As above.
        in_channels: Channels of the images.
        weights: A safetensors file.
        classes: Of the head in the file, which is left out.
        options: As above.
    """
    check_options(options)
    source = {"file": str(weights), "custom_load": False, "num_classes": classes}
    return _create(
        name, in_channels, pretrained=True, pretrained_cfg_overlay=source, **options
    )


def _create(name: str, in_channels: int, **options: Any) -> nn.Module:
    import timm

    check_name(name)
    if name.split(".")[0] not in timm.list_models():
        raise UserError(
            f"timm has no model '{name}'; {_near(name, timm.list_models())}"
        )
    try:
        model: nn.Module = timm.create_model(
            name, num_classes=0, in_chans=in_channels, **options
        )
    except Exception as error:  # options that do not fit fail in all ways there are
        reason = str(error).strip() or type(error).__name__
        raise UserError(f"cannot get timm:{name}: {reason}") from None
    return model


def _near(name: str, known: list[str]) -> str:
    """The nearest names; or a newer timm, as robustbench asks for one of 2024."""
    import timm

    hint = nearest(name, known)
    hint = hint if hint.startswith("did") else "timm.list_models() names all"
    newer = "a newer one may know it: pip install -U timm"
    return f"{hint} (timm {timm.__version__}; {newer})"


@dataclass(frozen=True)
class PretrainedConfig:
    """How a pretrained timm model wants its images, and where its weights lie."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    resample: str
    classes: int
    repo: str
    file: str = SAFETENSORS


def pretrained_config(name: str) -> PretrainedConfig:
    """Reads timm's own record of the weights.

    Raises:
        UserError: there is none, or they are no safetensors file on the hub.
    """
    import timm

    check_name(name)
    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # a known architecture with another tag
        config = None
    if config is None or not config.has_weights:
        known = timm.list_models(pretrained=True)
        raise UserError(
            f"timm has no pretrained weights '{name}'; {_near(name, known)}"
        )
    if not config.hf_hub_id:
        raise UserError(
            f"the weights of timm:{name} are no safetensors file on the hub; get the "
            f"file ({config.url}) and pass it with --arch timm:{name}"
        )
    own = config.hf_hub_filename
    return PretrainedConfig(
        config.mean,
        config.std,
        tuple(config.input_size[1:]),
        known_resampling(config.interpolation),
        config.num_classes,
        config.hf_hub_id,
        Path(own).stem + ".safetensors" if own else SAFETENSORS,
    )


def known_resampling(name: object) -> str:
    """Of the ways to resize that models are described with, the nearest one here."""
    return str(name) if name in RESAMPLING else "bilinear"
