"""Features in units of their own spread: what an invertible linear map cannot change.

An encoder z = g(x) with the head W z + b is the same predictor as A z with W A^-1, but
Euclidean lengths of z are not those of A z: an encoder whose features share one long
direction has a huge displacement and a huge bound for nothing. In whitened coordinates

    u = L (z - mean),    L = Lambda^-1/2 E',    Cov(z) = E Lambda E',

Cov(u) = 1 whatever A is. Two whitenings of A z and z differ by a rotation, so all that
is made of lengths of differences of u, and of head rows in these coordinates, is
invariant: displacement, the bound, margins, label-free measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.classifier import Classifier
from zoo.errors import UserError
from zoo.feature_metric import METRICS, WHITENED

FLAT = 1e-12
"""Directions of less variance than this share of the largest one vary by rounding of
float32 features alone. They keep their length: an attack may yet move there."""

NO_HEAD = (
    "whitened features need a linear head behind them, and a ready-made classifier has "
    "none; leave out the feature metric"
)


@dataclass(frozen=True)
class Whitening:
    """The map of one encoder on one set of images, in float64."""

    forward: Tensor
    """L (d, d): features to whitened ones, but for the mean."""
    back: Tensor
    """Its inverse."""


def whitening(z: Tensor) -> Whitening:
    """From clean features.

    Args:
        z: (N, d) with N > d, so that their covariance can have full rank.

    Raises:
        UserError: no more images than features.
    """
    count, width = z.shape
    if count <= width:
        raise UserError(_too_few(count, width))
    points = z.double()
    # Standard deviations first, so that the cut does not depend on a feature's unit.
    centred = points - points.mean(dim=0)
    scale = centred.square().mean(dim=0).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    standard = centred / scale
    values, axes = torch.linalg.eigh(standard.T @ standard / count)
    varies = values > FLAT * values.max().clamp(min=1e-300)
    lengths = torch.where(varies, values, 1.0).sqrt()
    return Whitening(
        forward=(axes / lengths).T / scale, back=scale.unsqueeze(1) * axes * lengths
    )


def check_units(metric: str, images: int, encoder: nn.Module | None) -> None:
    """That lengths can be measured in these units, before any work.

    Args:
        metric: One of `METRICS`.
        images: How many there will be.
        encoder: To be probed, or None for a ready-made classifier.

    Raises:
        UserError: another word; for whitened ones no encoder, or no more images than
            features.
    """
    if metric not in METRICS:
        raise UserError(f"metric '{metric}' is none of {', '.join(METRICS)}")
    if metric != WHITENED:
        return
    if encoder is None:
        raise UserError(NO_HEAD)
    features = getattr(encoder, "dim", None)
    if features is not None and images <= features:
        raise UserError(_too_few(images, features))


def _too_few(images: int, features: int) -> str:
    return (
        f"whitened measures need more images than features: {images} images, "
        f"{features} features"
    )


class _End(nn.Module):
    """An encoder and the map behind it, which is applied in float64."""

    rows: Tensor
    mean: Tensor

    def __init__(self, encoder: nn.Module, rows: Tensor, mean: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("rows", rows)
        self.register_buffer("mean", mean)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x).double()
        return (z - self.mean) @ self.rows.T


def whitened(classifier: Classifier, z: Tensor) -> Classifier:
    """The same predictor on features of unit covariance, float64.

    Args:
        classifier: With a linear head.
        z: Its clean features (N, d), N > d.

    Returns:
        On the same device, with the same logits.

    Raises:
        UserError: no whitening (see `whitening`), or no linear head.
    """
    head = classifier.linear
    if head is None:
        raise UserError(NO_HEAD)
    found, weight = whitening(z.cpu()), head.weight.detach().cpu().double()
    mean = z.cpu().double().mean(dim=0)
    bias = weight @ mean
    mine = nn.Linear(len(found.forward), classifier.classes, dtype=torch.float64)
    with torch.no_grad():
        mine.weight.copy_(weight @ found.back)
        mine.bias.copy_(bias if head.bias is None else bias + head.bias.cpu())
    return Classifier(
        _End(classifier.encoder, found.forward, mean),
        mine,
        classes=classifier.classes,
        shape=classifier.shape,
    ).to(head.weight.device)
