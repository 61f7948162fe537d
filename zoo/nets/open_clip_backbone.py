"""Image towers of open_clip as backbones, from sizes alone."""

from __future__ import annotations

from typing import Any

from zoo.errors import UserError
from zoo.extras import how_to_get
from zoo.nets.hub_options import OPEN_CLIP, check_options
from zoo.nets.resized import Resized
from zoo.nets.timm_options import check_name
from zoo.nets.width import measured_width

TOWER = "image"
"""The only name: everything else is options."""
NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


def open_clip_backbone(
    name: str,
    shape: tuple[int, int, int],
    *,
    resize: int | None = None,
    resample: str = "bilinear",
    embed_dim: int = 512,
    quick_gelu: bool = False,
    **vision: Any,
) -> Resized:
    """An image tower with fresh weights; nothing is read or downloaded.

    Args:
        name: "image".
        shape: (C, H, W) of the images; open_clip's have three channels.
        resize: See `Resized`.
        resample: See `Resized`.
        embed_dim: Number of features: those that images and texts share.
        quick_gelu: As OpenAI's models have it.
        vision: As `vision_cfg` of open_clip's own descriptions.

    Raises:
        UserError: an unknown name or option, sizes that do not fit, or open_clip is
            not installed.
    """
    if name != TOWER:
        raise UserError(f"'open_clip:{name}' is not open_clip:{TOWER}")
    check_options(vision, OPEN_CLIP, "open_clip's image towers")
    if vision.get("timm_model_name"):
        check_name(str(vision["timm_model_name"]))
    if shape[0] != 3:
        raise UserError(
            f"open_clip takes colour images, not {shape[0]} channels; name the dataset "
            "as NAME@3xHxW"
        )
    try:
        import open_clip
    except ImportError:
        raise UserError(
            f"models of open_clip need that package: {how_to_get('open-clip')}"
        ) from None
    try:
        whole = open_clip.CLIP(embed_dim, vision, NO_TEXT, quick_gelu=quick_gelu)
    except Exception as error:  # sizes that do not fit fail in all ways there are
        raise UserError(f"cannot build open_clip's image tower: {error}") from None
    backbone = Resized(whole.visual, resize, resample)
    backbone.dim = measured_width(backbone, shape, "open_clip's image tower")
    return backbone
