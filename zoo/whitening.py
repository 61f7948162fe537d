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

FLAT = 1e-14
"""Directions of less variance than this share of the largest one are no directions of
the images: float64 rounding of float32 features."""


@dataclass(frozen=True)
class Whitening:
    """The map of one encoder on one set of images, in float64."""

    forward: Tensor
    """L (k, d): features to whitened ones, but for the mean."""
    back: Tensor
    """(d, k): back into the span of the images' features; forward @ back = 1."""


def whitening(z: Tensor) -> Whitening:
    """From clean features.

    Args:
        z: (N, d) with N > d, so that their covariance can have full rank.

    Raises:
        UserError: no more images than features, or features that do not vary.
    """
    count, width = z.shape
    if count <= width:
        raise UserError(
            f"whitened measures need more images than features: {count} images, "
            f"{width} features"
        )
    points = z.double()
    # Standard deviations first, so that the cut does not depend on a feature's unit.
    centred = points - points.mean(dim=0)
    scale = centred.square().mean(dim=0).sqrt()
    if not bool((scale > 0).any()):
        raise UserError("the features are the same for all images")
    scale = torch.where(scale > 0, scale, 1.0)
    standard = centred / scale
    values, axes = torch.linalg.eigh(standard.T @ standard / count)
    kept = values > FLAT * values.max()
    lengths, axes = values[kept].sqrt(), axes[:, kept]
    return Whitening(
        forward=(axes / lengths).T / scale, back=scale.unsqueeze(1) * axes * lengths
    )


class _End(nn.Module):
    """An encoder and the map behind it, which is applied in float64."""

    def __init__(self, encoder: nn.Module, rows: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("rows", rows)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x).double() @ self.rows.T  # type: ignore[operator]


def whitened(classifier: Classifier, z: Tensor) -> Classifier:
    """The same predictor on features of unit covariance, float64.

    Args:
        classifier: With a linear head.
        z: Its clean features (N, d), N > d.

    Returns:
        On the same device. Its logits are those of `classifier` as far as the head
        ignores directions in which `z` does not vary.

    Raises:
        UserError: no whitening (see `whitening`), or no linear head.
    """
    head = classifier.linear
    if head is None:
        raise UserError("whitened features need a linear head behind them")
    found, weight = whitening(z.cpu()), head.weight.detach().cpu().double()
    mean = z.cpu().double().mean(dim=0)
    lost = weight @ (mean - found.back @ (found.forward @ mean))
    mine = nn.Linear(len(found.forward), classifier.classes, dtype=torch.float64)
    with torch.no_grad():
        mine.weight.copy_(weight @ found.back)
        mine.bias.copy_(lost if head.bias is None else lost + head.bias.cpu())
    return Classifier(
        _End(classifier.encoder, found.forward),
        mine,
        classes=classifier.classes,
        shape=classifier.shape,
    ).to(head.weight.device)
