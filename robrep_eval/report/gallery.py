"""Pictures of adversarials: clean, attacked, and what was changed, amplified."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robrep_eval.report.material import Material
from robrep_eval.report.seen import Seen
from zoo.threat import ThreatModel

PICTURES = 12
LARGEST = 96
"""Pixels of the longer side; of larger images every second, third, ... is shown."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One adversarial with its clean image."""

    index: int
    """Position in the published split."""
    truth: str
    said: str | None
    """The class that the classifier sees after the attack."""
    attack: str
    distance: float
    clean: str
    """All three as data URIs of PNG files."""
    attacked: str
    change: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The pictures and what must be said about all of them."""

    pictures: list[Picture]
    factor: float
    """By which changes are multiplied; grey is no change."""
    stride: int
    """Every so many pixels are shown; 1: all."""


def gallery(material: Material, seen: Seen | None) -> Gallery | None:
    """Adversarials by a fixed rule; None if there are none, or no images.

    The first fooled image of each class, then the second of each, and so on.
    """
    data, claims = material.data, material.claims
    if data is None or claims is None or seen is None or not seen.row:
        return None
    examples = material.result.examples
    chosen = _choose(seen, examples.label)
    rows = [seen.row[at] for at in chosen]
    x, x_adv = data.images(rows), claims.images[chosen]
    factor = _factor(x_adv - x, material.result.threat)
    stride = max(1, math.ceil(max(x.shape[2:]) / LARGEST))
    pictures = []
    for at, row, clean, attacked in zip(chosen, rows, x, x_adv, strict=True):
        said = None if seen.said is None else material.class_name(seen.said[at])
        pictures.append(
            Picture(
                index=examples.index[row],
                truth=material.class_name(examples.label[row]),
                said=said,
                attack=seen.attack[at],
                distance=seen.distance[at],
                clean=data_uri(clean, stride),
                attacked=data_uri(attacked, stride),
                change=data_uri(0.5 + factor * (attacked - clean), stride),
            )
        )
    return Gallery(pictures=pictures, factor=factor, stride=stride)


def _choose(seen: Seen, labels: list[int]) -> list[int]:
    """Positions among the adversarials, round after round through the classes."""
    rounds: dict[int, int] = {}
    found: list[tuple[int, int, int]] = []
    for row, at in sorted(seen.first().items()):
        label = labels[row]
        found.append((rounds.get(label, 0), label, at))
        rounds[label] = rounds.get(label, 0) + 1
    return [at for _, _, at in sorted(found)[:PICTURES]]


def _factor(change: Tensor, threat: ThreatModel) -> float:
    """So that the largest change reaches black or white; two digits, rounded down."""
    largest = threat.eps if threat.norm == "Linf" else float(change.abs().max())
    if largest <= 0:
        return 1.0
    factor = 0.5 / largest
    power = 10.0 ** (math.floor(math.log10(factor)) - 1)
    return math.floor(factor / power + 1e-9) * power


def data_uri(image: Tensor, stride: int = 1) -> str:
    """A PNG of an image (C, H, W) in [0, 1]; neither 1 nor 3 channels become grey."""
    from PIL import Image

    if image.shape[0] not in (1, 3):
        image = image.mean(dim=0, keepdim=True)
    pixels = (image[:, ::stride, ::stride].clamp(0, 1) * 255).round().to(torch.uint8)
    array = pixels.squeeze(0) if len(pixels) == 1 else pixels.permute(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(array.contiguous().numpy()).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
