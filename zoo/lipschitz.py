"""Certificates of Lipschitz encoders: proofs without sampling, for any linear head.

If ||g(x) - g(x')||_2 <= L ||x - x'||_2 for all images, no perturbation of L2 length
eps moves a feature by more than L eps; a prediction whose margin, measured in feature
space, exceeds that cannot change. L is computed here from the weights and never taken
from a card.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.bound import features_and_logits, linear_head, margins
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.layout import ON_CPU, Layout
from zoo.measurements import LipschitzCertificate, Radii
from zoo.nets.lipschitz import LipschitzNet
from zoo.records import Proportion
from zoo.threat import ThreatModel

CURVE_POINTS = 21
ROUNDING = 1e-5
"""Share of its length by which float32 may misplace a feature of a shallow network
(some 2^-24 per operation); the margin gives up twice that, for x and for x'."""


def lipschitz_constant(encoder: nn.Module) -> float:
    """Upper bound on the L2 Lipschitz constant of an encoder, from its weights.

    The product of the spectral norms of the layers (singular values in float64) and of
    the largest 1/std; activations that permute are 1-Lipschitz.

    Raises:
        UserError: not an encoder whose layers have a known constant.
    """
    if not isinstance(encoder, Encoder) or not isinstance(
        encoder.backbone, LipschitzNet
    ):
        kind = encoder.spec.arch if isinstance(encoder, Encoder) else "this model"
        raise UserError(
            f"no Lipschitz constant is known for {kind}; margin certificates need an "
            "encoder of architecture 'lipschitz_dense' (randomised smoothing certifies "
            "any encoder: --certify smoothing)"
        )
    constant = float((1 / encoder.std.double()).abs().max())
    for layer in encoder.backbone.linears():
        constant *= float(
            torch.linalg.matrix_norm(layer.weight.detach().double(), ord=2)
        )
    return constant


def to_norm(constant: float, threat: ThreatModel, shape: tuple[int, ...]) -> float:
    """The constant when images are measured in the norm of the threat model.

    ||d||_2 <= ||d||_1, and ||d||_2 <= sqrt(D) ||d||_inf for D pixels.
    """
    return constant * (math.sqrt(math.prod(shape)) if threat.norm == "Linf" else 1.0)


def certified_radii(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    constant: float,
    layout: Layout = ON_CPU,
) -> Tensor:
    """Per example the largest radius with a proof, 0 where misclassified; (N,)."""
    z, logits = features_and_logits(classifier, x, layout)
    weight = linear_head(classifier).weight.detach().cpu()
    slack = 2 * ROUNDING * z.norm(dim=1)
    radius = (margins(logits, weight) - slack).clamp(min=0) / constant
    return torch.where(logits.argmax(dim=1) == y, radius, torch.zeros_like(radius))


def certify_lipschitz(
    classifier: Classifier,
    x: Tensor | Dataset,
    y: Tensor,
    threat: ThreatModel,
    layout: Layout = ON_CPU,
) -> LipschitzCertificate:
    """Certified accuracy at `threat.eps` and against radius.

    Args:
        classifier: A Lipschitz encoder with any linear head.
        x: Clean images (N, C, H, W); those of a dataset are read batch by batch.
        y: Labels (N,).
        threat: Norm and eps.
        layout: Where the classifier lives, and images per forward pass.

    Raises:
        UserError: no linear head, or no known constant.
    """
    shape = tuple(x.shape[1:]) if isinstance(x, Tensor) else x.shape
    constant = to_norm(lipschitz_constant(classifier.encoder), threat, shape)
    images = [x] if isinstance(x, Tensor) else x.batches(layout)
    radii = torch.cat(
        [
            certified_radii(classifier, part, own, constant, layout)
            for part, own in zip(images, _as_parted(y, x, layout), strict=True)
        ]
    )
    return LipschitzCertificate(
        norm=threat.norm,
        constant=constant,
        method="spectral norms of all layers in float64",
        certified=Proportion.of(int((radii > threat.eps).sum()), len(y)),
        curve=radius_curve(radii, threat.eps),
        radius=radii.clamp(max=torch.finfo(torch.float32).max).tolist(),
    )


def radius_curve(radii: Tensor, eps: float) -> Radii:
    """Share of examples certified beyond each radius from 0 to 2 eps."""
    grid = [2 * eps * step / (CURVE_POINTS - 1) for step in range(CURVE_POINTS)]
    return Radii(
        radius=grid,
        certified=[Proportion.of(int((radii > r).sum()), len(radii)) for r in grid],
    )


def _as_parted(y: Tensor, x: Tensor | Dataset, layout: Layout) -> tuple[Tensor, ...]:
    """Labels in the parts in which the images come."""
    return (y,) if isinstance(x, Tensor) else y.split(layout.batch_size)
