"""Any timm model as a backbone that returns pooled features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UserError, nearest
from zoo.nets.timm_options import check_name, check_options
from zoo.nets.width import measured_width


class TimmBackbone(nn.Module):
    """A timm model without classifier, fed at the size it was made for.

    Args:
        model: A timm model created with `num_classes=0`.
        resize: Height and width that images are brought to (bilinear, antialiased
            so that it stays differentiable and smooth), or None to leave them.
    """

    dim: int

    def __init__(self, model: nn.Module, resize: int | None) -> None:
        super().__init__()
        self.model = model
        self.resize = resize

    def forward(self, x: Tensor) -> Tensor:
        if self.resize is not None and x.shape[-2:] != (self.resize, self.resize):
            x = F.interpolate(
                x,
                (self.resize, self.resize),
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )
        return self.model(x)  # type: ignore[no-any-return]


def timm_backbone(
    name: str,
    shape: tuple[int, int, int],
    *,
    resize: int | None = None,
    **options: Any,
) -> TimmBackbone:
    """Creates `name` with fresh weights; nothing is read or downloaded.

    Args:
        name: timm's `architecture` or `architecture.tag`.
        shape: (C, H, W) of the images.
        resize: See `TimmBackbone`.
        options: Of the architecture; see `zoo.nets.timm_options`.

    Raises:
        UserError: an unknown name (with the nearest), or an option that is not the
            architecture's own, or images that it cannot take.
    """
    check_options(options)
    model = _create(name, shape[0], pretrained=False, **options)
    backbone = TimmBackbone(model, resize)
    backbone.dim = measured_width(backbone, shape, f"timm:{name}")
    return backbone


def pretrained_backbone(
    name: str, in_channels: int, resize: int | None
) -> TimmBackbone:
    """The same with timm's own weights, which are downloaded.

    Only for a name that people typed themselves: timm decides what it reads.
    """
    return TimmBackbone(_create(name, in_channels, pretrained=True), resize)


def _create(
    name: str, in_channels: int, *, pretrained: bool, **options: Any
) -> nn.Module:
    import timm

    check_name(name)
    if name.split(".")[0] not in timm.list_models():
        raise UserError(
            f"timm has no model '{name}'; {_near(name, timm.list_models())}"
        )
    try:
        model: nn.Module = timm.create_model(
            name,
            pretrained=pretrained,
            num_classes=0,
            in_chans=in_channels,
            **options,
        )
    except Exception as error:  # options that do not fit fail in all ways there are
        reason = str(error).strip() or type(error).__name__
        hint = (
            ". If there is no network, fetch the weights elsewhere and pass the file "
            "with --arch timm:NAME"
        ) * pretrained
        raise UserError(f"cannot get timm:{name}: {reason}{hint}") from None
    return model


def _near(name: str, known: list[str]) -> str:
    hint = nearest(name, known)
    return hint if hint.startswith("did") else "timm.list_models() names all"


@dataclass(frozen=True)
class PretrainedConfig:
    """How a pretrained timm model wants its images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]


def pretrained_config(name: str) -> PretrainedConfig:
    """Reads timm's own record of the weights; raises `UserError` without one."""
    import timm

    config = timm.models.get_pretrained_cfg(name)
    if config is None:
        raise UserError(
            f"timm has no pretrained weights '{name}'; "
            f"{_near(name, timm.list_models(pretrained=True))}"
        )
    return PretrainedConfig(config.mean, config.std, tuple(config.input_size[1:]))
