"""An encoder in the files of the library that its architecture is from.

That library's own calls load them, without robrep; what robrep keeps inside the encoder
(normalisation, size) stands in the configuration beside the weights.

timm          timm.create_model(NAME, num_classes=0, checkpoint_path=FOLDER/model...)
transformers  AutoModel.from_pretrained(FOLDER)
open_clip     model.visual.load_state_dict(safetensors.torch.load_file(...))
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from zoo import architectures
from zoo.architectures import LINEAR_END, OPEN_CLIP, TIMM, TRANSFORMERS
from zoo.encoder import Encoder, EncoderSpec
from zoo.errors import UserError
from zoo.files import write_tensors, write_text
from zoo.nets.timm_backbone import SAFETENSORS

CONFIG = "config.json"
RESAMPLE = {"bilinear": 2, "bicubic": 3}
"""Pillow's numbers."""
INSIDE = frozenset({"resize", "resample"})
"""Options that are robrep's and not the library's."""


def export(encoder: Encoder, to: Path) -> str:
    """Writes the files; returns the call that loads them.

    Args:
        encoder: Of an architecture of timm, transformers or open_clip.
        to: A folder, made if need be; files of these names in it must not be there.

    Raises:
        UserError: an architecture of robrep's own, one with a linear end, or a folder
            that holds a file of one of these names already.
    """
    arch = encoder.spec.arch
    if LINEAR_END in encoder.spec.options:
        raise UserError(
            "the encoder ends in a linear layer of robrep's (stable), which no other "
            "library has; load it with zoo.load"
        )
    if not arch.startswith(architectures.FOREIGN):
        raise UserError(
            f"'{arch}' is an architecture of robrep's own, not of timm, transformers "
            "or open_clip; load it with zoo.load"
        )
    model = encoder.backbone.model
    assert isinstance(model, nn.Module), "backbones of other libraries have one"
    writer = _WRITERS[arch.partition(":")[0] + ":"]
    to.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=to, prefix=".export-") as place:
        # A library's own writer may replace or remove what it finds in its folder.
        call = writer(encoder, model, Path(place))
        files = sorted(Path(place).iterdir())
        for file in files:
            if (to / file.name).exists():
                raise UserError(
                    f"{to / file.name} exists already; choose another folder"
                )
        for file in files:
            file.rename(to / file.name)
    return call.replace(place, str(to))


def pixels(spec: EncoderSpec) -> str:
    """What is to be done to images in [0, 1] before the library's model takes them.

    robrep's encoder does so itself, and of the files only the configuration says it.
    """
    mean, std = _channels(spec, spec.mean), _channels(spec, spec.std)
    height, width = _size(spec)
    return (
        f"images in [0, 1], {height} x {width}, must be normalised first, "
        f"(x - mean) / std by channel: mean {mean}, std {std}"
    )


def _timm(encoder: Encoder, model: nn.Module, to: Path) -> str:
    """As timm's `push_to_hf_hub` lays a repository out."""
    spec = encoder.spec
    name, options = spec.arch.removeprefix(TIMM), _own(spec)
    write_tensors(to / SAFETENSORS, model.state_dict(), {})
    _write_config(
        to,
        {
            "architecture": name.partition(".")[0],
            "num_classes": 0,
            "num_features": encoder.dim,
            "pretrained_cfg": {
                "input_size": [spec.shape[0], *_size(spec)],
                "mean": _channels(spec, spec.mean),
                "std": _channels(spec, spec.std),
                "interpolation": spec.options.get("resample", "bilinear"),
                "crop_pct": 1.0,
                "num_classes": 0,
            },
            "model_args": options,
        },
    )
    arguments = "".join(f", {key}={value!r}" for key, value in options.items())
    return (
        f'timm.create_model("{name.partition(".")[0]}", num_classes=0, '
        f'in_chans={spec.shape[0]}, checkpoint_path="{to / SAFETENSORS}"{arguments})'
    )


def _transformers(encoder: Encoder, model: nn.Module, to: Path) -> str:
    spec, (height, width) = encoder.spec, _size(encoder.spec)
    model.save_pretrained(to)  # type: ignore[operator]
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": RESAMPLE[spec.options.get("resample", "bilinear")],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _channels(spec, spec.mean),
        "image_std": _channels(spec, spec.std),
    }
    write_text(to / "preprocessor_config.json", json.dumps(processor, indent=2) + "\n")
    return f'transformers.{type(model).__name__}.from_pretrained("{to}")'


def _open_clip(encoder: Encoder, model: nn.Module, to: Path) -> str:
    """The image tower alone: its text tower is no part of an encoder."""
    write_tensors(to / SAFETENSORS, model.state_dict(), {})
    spec = encoder.spec
    _write_config(
        to,
        {
            "vision_cfg": _own(spec),
            "preprocess_cfg": {
                "size": _size(spec),
                "mean": _channels(spec, spec.mean),
                "std": _channels(spec, spec.std),
                "interpolation": spec.options.get("resample", "bicubic"),
            },
        },
    )
    return (
        "model.visual.load_state_dict(safetensors.torch.load_file("
        f'"{to / SAFETENSORS}"))'
    )


_WRITERS: dict[str, Callable[[Encoder, nn.Module, Path], str]] = {
    TIMM: _timm,
    TRANSFORMERS: _transformers,
    OPEN_CLIP: _open_clip,
}


def _own(spec: EncoderSpec) -> dict[str, Any]:
    """Options of the library's own."""
    return {key: v for key, v in spec.options.items() if key not in INSIDE}


def _size(spec: EncoderSpec) -> list[int]:
    """Height and width that reach the network."""
    side = spec.options.get("resize")
    return [side, side] if side else list(spec.shape[1:])


def _channels(spec: EncoderSpec, values: tuple[float, ...]) -> list[float]:
    return list(values) if len(values) > 1 else list(values) * spec.shape[0]


def _write_config(to: Path, content: dict[str, Any]) -> None:
    write_text(to / CONFIG, json.dumps(content, indent=2) + "\n")
