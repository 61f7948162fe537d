"""Encoders with and without the linear map that they end in."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from zoo.architectures import LINEAR_END
from zoo.encoder import Encoder, EncoderSpec
from zoo.nets.linear_end import LinearEnd


def with_end(encoder: Encoder, rows: Tensor) -> Encoder:
    """A copy that ends in a linear map.

    Args:
        encoder: Without such an end.
        rows: (k, d), k <= d, float32: the features that shall leave it.

    Returns:
        In eval mode, frozen, on the device of `rows`.
    """
    spec = encoder.spec
    options = {**spec.options, LINEAR_END: len(rows)}
    ended = Encoder(spec.model_copy(update={"options": options}))
    end = ended.backbone
    assert isinstance(end, LinearEnd)
    end.backbone = copy.deepcopy(encoder.backbone)
    with torch.no_grad():
        end.end.weight.copy_(rows)
    return ended.eval().requires_grad_(False).to(rows.device)


def without_end(encoder: Encoder) -> tuple[Encoder, Tensor | None]:
    """The encoder before its linear end, and that end's rows (k, d).

    Returns:
        Both share weights with the encoder; one that has no such end comes back as it
        is, with None.
    """
    end = encoder.backbone
    if not isinstance(end, LinearEnd):
        return encoder, None
    shortened = Encoder(spec_without_end(encoder.spec))
    shortened.backbone = end.backbone
    rows = end.end.weight.detach()
    return shortened.to(rows.device).train(encoder.training), rows


def spec_without_end(spec: EncoderSpec) -> EncoderSpec:
    """The description of an encoder before its linear end, if it has one."""
    options = {k: v for k, v in spec.options.items() if k != LINEAR_END}
    return spec.model_copy(update={"options": options})
