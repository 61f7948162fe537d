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
from zoo.measurements import Measured

FLAT = 1e-12
"""Directions of less variance than this share of the largest one vary by rounding of
float32 features alone. They keep their length: an attack may yet move there."""
WHITENED, PLAIN = METRICS = ("whitened", "plain")
"""Units of lengths in feature space: whitened, or as the encoder gives them, in which
records are that note none."""


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


def check_units(metric: str, images: int, features: int | None) -> None:
    """That lengths can be measured in these units, before any work.

    Args:
        metric: One of `METRICS`.
        images: How many there will be.
        features: Of the encoder; None if that is not known yet.

    Raises:
        UserError: another word, or no more images than features for whitened ones.
    """
    if metric not in METRICS:
        raise UserError(f"metric '{metric}' is none of {', '.join(sorted(METRICS))}")
    if metric == WHITENED and features is not None and images <= features:
        raise UserError(_too_few(images, features))


def _too_few(images: int, features: int) -> str:
    return (
        f"whitened measures need more images than features: {images} images, "
        f"{features} features"
    )


def said_metric(record: Measured) -> str:
    """The units of a record."""
    return str(record.settings.get("metric", PLAIN))


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
        raise UserError("whitened features need a linear head behind them")
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
