"""Image encoders of transformers as backbones, from sizes alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.errors import UserError
from zoo.extras import how_to_get
from zoo.nets.hub_options import TRANSFORMERS, Kind, check_kind, check_options
from zoo.nets.resized import Resized
from zoo.nets.width import measured_width


class TransformersBackbone(Resized):
    """A model of transformers, and which of its outputs are features."""

    kind: Kind

    def features(self, x: Tensor) -> Tensor:
        out = self.model(pixel_values=x)
        z = out.pooler_output if self.kind.pooled else out.last_hidden_state[:, 0]
        return z.flatten(1)  # type: ignore[no-any-return]


def transformers_backbone(
    name: str,
    shape: tuple[int, int, int],
    *,
    resize: int | None = None,
    resample: str = "bilinear",
    **options: Any,
) -> TransformersBackbone:
    """A model of that type with fresh weights; nothing is read or downloaded.

    Args:
        name: Of its type, as "vit"; see `zoo.nets.hub_options.KINDS`.
        shape: (C, H, W) of the images.
        resize: See `Resized`.
        resample: See `Resized`.
        options: Sizes and switches, as in the config.json of such a model.

    Raises:
        UserError: an unknown type or option, sizes that do not fit, or transformers
            is not installed.
    """
    kind = check_kind(name)
    model, arguments = _class(kind)
    config = _config(model, shape[0], options)
    try:
        made = model(config, **arguments)
    except Exception as error:  # sizes that do not fit fail in all ways there are
        raise UserError(f"cannot build transformers:{name}: {error}") from None
    backbone = TransformersBackbone(made, resize, resample)
    backbone.kind = kind
    backbone.dim = measured_width(backbone, shape, f"transformers:{name}")
    return backbone


def pretrained_model(
    name: str, in_channels: int, weights: Path, **options: Any
) -> nn.Module:
    """The same model with the weights of a safetensors file.

    transformers itself brings them to its names of today. It sees a folder that holds
    nothing but the file.

    Raises:
        UserError: as above; weights that are missing or of another shape.
    """
    model, arguments = _class(check_kind(name))
    config = _config(model, in_channels, options)
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(weights.resolve(), Path(folder, "model.safetensors"))
        try:
            made, info = model.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **arguments,
            )
        except Exception as error:  # other people's files fail in all ways there are
            raise UserError(f"the weights do not fit {name}: {error}") from None
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"the file lacks {len(missing)} weights of {name} ({missing[0]}, ...)"
        )
    return made.float()  # type: ignore[no-any-return]


def defaults(name: str) -> dict[str, Any]:
    """All options of a type, by their names in config.json."""
    model, _ = _class(check_kind(name))
    return model.config_class().to_dict()  # type: ignore[no-any-return]


def _class(kind: Kind) -> tuple[Any, dict[str, Any]]:
    try:
        import transformers
    except ImportError:
        raise UserError(
            f"models of transformers need that package: {how_to_get('transformers')}"
        ) from None
    return getattr(transformers, kind.model), (
        {} if kind.pooled else {"add_pooling_layer": False}
    )


def _config(model: Any, channels: int, options: dict[str, Any]) -> Any:
    check_options(options, TRANSFORMERS, "transformers' image encoders")
    try:
        return model.config_class(num_channels=channels, **options)
    except Exception as error:  # its validation raises errors of its own
        raise UserError(f"options of transformers that do not fit: {error}") from None
