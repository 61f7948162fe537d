"""Image encoders of timm, transformers and open_clip in repositories of the hub.

Which library a repository is for, its files say. The libraries build the model and
know the names of its weights; what they are told are sizes on a list of robrep's own,
and a safetensors file. No code of a repository runs, and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo import architectures
from zoo.collection.fitting import fit_names
from zoo.collection.sources_hub import NoSuchFileError, Repository
from zoo.encoder import Encoder, EncoderSpec, build_described, describing, load_weights
from zoo.errors import RobrepError, UserError
from zoo.files import read_json, read_tensors
from zoo.nets import hub_options
from zoo.nets.timm_backbone import (
    SAFETENSORS,
    known_resampling,
    pretrained_config,
    pretrained_model,
)

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
RESAMPLE = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Pretrained:
    """An encoder of another library, with its weights."""

    encoder: Encoder
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HubModel:
    """A repository that was recognised; nothing but its description was fetched."""

    library: str
    load: Callable[[Shape], Pretrained]
    """Takes (C, H, W) of the images that it is for."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """How a model wants its images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int
    resample: str = "bilinear"

    def options(self, shape: Shape) -> dict[str, Any]:
        """Those of `Resized`, if the images have another size."""
        if shape[1:] == (self.side, self.side):
            return {}
        return {"resize": self.side, "resample": self.resample}


def from_timm(reference: str, shape: Shape) -> Pretrained:
    """timm:NAME with timm's own weights, fetched from the hub.

    Raises:
        UserError: an unknown name, or no safetensors file.
        RobrepError: the hub cannot be reached.
    """
    name = reference.removeprefix(architectures.TIMM)
    config = pretrained_config(name)
    try:
        weights = Repository.parse(config.repo).get(config.file)
    except RobrepError as error:
        raise type(error)(
            f"{error}. Where the network is out of reach, get the file elsewhere and "
            f"pass it with --arch {reference}"
        ) from None
    side = config.size[0]
    inputs = Inputs(
        mean=config.mean, std=config.std, side=side, resample=config.resample
    )
    return _timm(reference, name, weights, config.classes, {}, inputs, shape)


def find_model(reference: str) -> HubModel | None:
    """The model of a hub repository, if its files are of a library known here."""
    at = Repository.parse(reference)
    described = _json(at, OPEN_CLIP_CONFIG)
    if "model_cfg" in described:
        return HubModel("open_clip", partial(_from_open_clip, at, described))
    described = _json(at, CONFIG)
    if "architecture" in described:
        return HubModel("timm", partial(_from_timm_repository, at, described))
    if "model_type" in described:
        return HubModel("transformers", partial(_from_transformers, at, described))
    return None


def _json(at: Repository, name: str) -> dict[str, Any]:
    """A file of the repository, {} if there is none, or it is not known offline."""
    try:
        found = read_json(at.get(name))
    except NoSuchFileError:
        return {}
    except UserError:
        raise
    except RobrepError:
        return {}
    return found if isinstance(found, dict) else {}


def _weights(at: Repository, *names: str) -> Path:
    for name in names:
        try:
            return at.get(name)
        except NoSuchFileError:
            continue
    raise UserError(
        f"{at.uri} has no {' or '.join(names)}; robrep reads safetensors files alone"
    )


def _from_timm_repository(
    at: Repository, described: dict[str, Any], shape: Shape
) -> Pretrained:
    """As timm's `push_to_hf_hub` writes it."""
    config = described.get("pretrained_cfg", described)
    arguments = described.get("model_args", {})
    with describing(at.uri):
        inputs = Inputs(
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            side=int(config["input_size"][1]),
            resample=known_resampling(config.get("interpolation")),
        )
        classes = int(described.get("num_classes", config.get("num_classes", 0)))
        name = str(described["architecture"])
    weights = _weights(at, SAFETENSORS)
    return _timm(at.uri, name, weights, classes, dict(arguments), inputs, shape)


def _timm(
    reference: str,
    name: str,
    weights: Path,
    classes: int,
    arguments: dict[str, Any],
    inputs: Inputs,
    shape: Shape,
) -> Pretrained:
    arch = f"{architectures.TIMM}{name}"
    spec = _spec(reference, arch, arguments, inputs, shape)
    held = read_tensors(weights)[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = _described(reference, spec, held)
        torch.manual_seed(0)
        donor = pretrained_model(name, shape[0], weights, classes, **arguments)
    _check_all_read(reference, donor, encoder)
    load_weights(
        encoder.backbone.model,  # type: ignore[arg-type]
        donor.state_dict(),
        source=reference,
    )
    return Pretrained(encoder.eval())


def _check_all_read(reference: str, donor: nn.Module, fresh: Encoder) -> None:
    """timm leaves weights as they were drawn if a file lacks them: not here.

    Raises:
        UserError: a weight is still the one that the same seed drew.
    """
    drawn = dict(fresh.backbone.model.named_parameters())  # type: ignore[union-attr]
    same = [
        name
        for name, value in donor.named_parameters()
        if not name.endswith("pos_embed")  # some are computed
        and value.numel() > 1
        and bool(value.min() < value.max())
        and torch.equal(value, drawn[name])
    ]
    if same:
        raise UserError(
            f"the file of {reference} lacks {len(same)} weights ({same[0]}, ...)"
        )


def _from_transformers(
    at: Repository, described: dict[str, Any], shape: Shape
) -> Pretrained:
    """As transformers' `save_pretrained` writes it, with its image processor."""
    from zoo.nets.transformers_backbone import defaults, pretrained_model

    name = str(described["model_type"])
    if name in ("clip", "siglip") and isinstance(described.get("vision_config"), dict):
        name, described = f"{name}_vision_model", described["vision_config"]
    hub_options.check_kind(name)
    _check_channels(at.uri, shape)
    options = _passed_on(at.uri, described, defaults(name))
    inputs = _processed(at, described)
    weights = _weights(at, SAFETENSORS)
    arch = f"{architectures.TRANSFORMERS}{name}"
    spec = _spec(at.uri, arch, options, inputs, shape)
    encoder = _described(at.uri, spec, read_tensors(weights)[0])
    donor = pretrained_model(name, shape[0], weights, **options)
    load_weights(
        encoder.backbone.model,  # type: ignore[arg-type]
        donor.state_dict(),
        source=at.uri,
    )
    return Pretrained(encoder.eval())


def _check_channels(uri: str, shape: Shape) -> None:
    if shape[0] != 3:
        raise UserError(
            f"{uri} takes colour images, not {shape[0]} channels; name the dataset as "
            "NAME@3xHxW"
        )


def _passed_on(
    uri: str, described: Mapping[str, Any], usual: Mapping[str, Any]
) -> dict[str, Any]:
    """Options on robrep's list; another that would change the features is an error."""
    options = {}
    for key, value in described.items():
        if key in hub_options.TRANSFORMERS:
            if value is not None and value != usual.get(key):
                options[key] = value
        elif (
            key in usual
            and key not in hub_options.WITHOUT_EFFECT
            and value != usual[key]
        ):
            raise UserError(f"{uri} sets '{key}', which robrep does not pass on")
    return options


def _processed(at: Repository, described: Mapping[str, Any]) -> Inputs:
    """What the image processor does, as far as an encoder can: not its crop."""
    found = _json(at, PREPROCESSOR)
    if not found:
        raise UserError(f"{at.uri} has no {PREPROCESSOR}, which says the pixels' scale")
    factor = found.get("rescale_factor", 1 / 255)
    if abs(255 * float(factor) - 1) > 1e-3 or not found.get("do_rescale", True):
        raise UserError(f"{at.uri} wants pixels of another scale than [0, 1]")
    plain = not found.get("do_normalize", True)
    with describing(at.uri):
        return Inputs(
            mean=(0.0,) if plain else tuple(found["image_mean"]),
            std=(1.0,) if plain else tuple(found["image_std"]),
            side=_side(found, described),
            resample=RESAMPLE.get(found.get("resample", 2), "bilinear"),
        )


def _side(found: Mapping[str, Any], described: Mapping[str, Any]) -> int:
    """Of the square that reaches the network: after the crop, if there is one."""
    crop = found.get("do_center_crop") and found.get("crop_size")
    size = crop or found.get("size") or described.get("image_size", 224)
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    return int(size)


def _from_open_clip(
    at: Repository, described: dict[str, Any], shape: Shape
) -> Pretrained:
    """As open_clip's `push_to_hf_hub` writes it; the text tower is left out."""
    with describing(at.uri):
        model, pixels = described["model_cfg"], described["preprocess_cfg"]
        vision = dict(model["vision_cfg"])
        size = vision.get("image_size", 224)
        inputs = Inputs(
            mean=tuple(pixels["mean"]),
            std=tuple(pixels["std"]),
            side=int(size[0] if isinstance(size, list) else size),
            resample=known_resampling(pixels.get("interpolation", "bicubic")),
        )
        options = {**vision, "embed_dim": model["embed_dim"]}
        options |= {k: model[k] for k in ("quick_gelu",) if k in model}
    options.pop("timm_model_pretrained", None)  # weights that the file replaces
    _check_channels(at.uri, shape)
    arch = f"{architectures.OPEN_CLIP}image"
    spec = _spec(at.uri, arch, options, inputs, shape)
    tensors = read_tensors(_weights(at, OPEN_CLIP_WEIGHTS, SAFETENSORS))[0]
    encoder = _described(at.uri, spec, tensors)
    tower: nn.Module = encoder.backbone.model  # type: ignore[assignment]
    found = fit_names(tensors, tower.state_dict(), source=at.uri, prefix="visual.")
    load_weights(tower, found.weights, source=at.uri)
    return Pretrained(encoder.eval())


def _spec(
    uri: str, arch: str, options: dict[str, Any], inputs: Inputs, shape: Shape
) -> EncoderSpec:
    """mean and std of colour serve grey images by their average."""
    mean, std = (
        values if len(values) in (1, shape[0]) else (sum(values) / len(values),)
        for values in (inputs.mean, inputs.std)
    )
    with describing(uri):
        return EncoderSpec(
            arch=arch,
            options={**options, **inputs.options(shape)},
            shape=shape,
            mean=mean,
            std=std,
        )


def _described(uri: str, spec: EncoderSpec, tensors: dict[str, Tensor]) -> Encoder:
    with describing(uri):
        return build_described(spec, tensors)
