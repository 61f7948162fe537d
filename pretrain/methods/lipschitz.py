"""1-Lipschitz encoders without labels: what is far apart in features is so in pixels.

L = InfoNCE of -||g(v1) - g(v2)||^2 / temperature.

Every layer keeps lengths (orthogonal weights, MaxMin in between), so features cannot
move farther than pixels do. The loss has to separate images by true distances, since
nothing can be stretched: that distance is the certificate. Orthogonal weights are
deel-torchlip's; the published ones are plain matrices.

Source: layers of Serrurier et al. 2021, arXiv 2006.06520; the combination is ours.
"""

from __future__ import annotations

import copy
import warnings
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from pretrain.losses import distance_contrast
from pretrain.methods.base import Batch, Cost, LossParts, Materials, Method
from pretrain.recipe import AttackSettings, Section
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.extras import how_to_get
from zoo.nets.lipschitz import LipschitzNet

SHRINK = 1 - 2.0**-21
"""Leaves room for the rounding of the published float32 weights."""


class LipschitzOptions(Section):
    """Settings of the Lipschitz contrast."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides squared distances, in the units of pixels in [0, 1]."""


class Lipschitz(Method):
    """Two clean views, one network whose weights stay orthogonal."""

    shares = False

    Options = LipschitzOptions
    adversarial = False
    normalises = False
    archs = ("lipschitz_dense",)

    def __init__(self, materials: Materials) -> None:
        super().__init__(materials)
        backbone = materials.encoder.backbone
        if not isinstance(backbone, LipschitzNet):
            raise UserError(
                "method 'lipschitz-contrast' keeps the layers of arch lipschitz_dense "
                f"orthogonal, not those of {materials.encoder.spec.arch}; set arch to "
                "lipschitz_dense"
            )
        make_orthogonal(backbone)

    def projector_sets(self) -> int:
        """No projector: it could stretch."""
        return 0

    def forward(self, batch: Batch) -> LossParts:
        """One pass of both views, so that weights are orthogonalised once."""
        views = torch.cat([self.view(batch), self.view(batch)])
        a, b = self.encoder(views).chunk(2)
        temperature = self.options.temperature
        return {"contrast": distance_contrast(a, b, temperature=temperature)}

    def cost(self, attack: AttackSettings) -> Cost:
        """Two trained views."""
        return Cost(2, 0, 2)

    def export(self, encoder: nn.Module | None = None) -> Encoder:
        """The same function with plain matrices, 1-Lipschitz to the letter.

        Rounding leaves a spectral norm of 1 + 1e-7 here and there; it is divided by.
        """
        # A copy: in train mode every look at a weight takes its power iteration on.
        trained = copy.deepcopy(encoder or self.published()).train()
        assert isinstance(trained, Encoder)
        plain = Encoder(trained.spec).to(trained.mean.device)
        with torch.no_grad():
            for own, theirs in zip(_linears(plain), _linears(trained), strict=True):
                weight = theirs.weight.double()
                norm = torch.linalg.matrix_norm(weight, ord=2)
                own.weight.copy_(weight / norm.clamp(min=1) * SHRINK)
                own.bias.copy_(theirs.bias)
        return plain.eval()


def make_orthogonal(net: LipschitzNet) -> None:
    """Puts torchlip's orthogonal layers, freshly drawn, in place of the linear ones.

    Raises:
        UserError: torchlip is not installed.
    """
    torchlip = _torchlip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchlip's about torch's parametrisations
        for index, layer in enumerate(net.layers):
            if isinstance(layer, nn.Linear):
                net.layers[index] = torchlip.SpectralLinear(
                    layer.in_features, layer.out_features
                )


def _linears(encoder: Encoder) -> list[nn.Linear]:
    assert isinstance(encoder.backbone, LipschitzNet), "checked when it was made"
    return list(encoder.backbone.linears())


def _torchlip() -> Any:
    try:
        from deel import torchlip
    except ImportError:
        raise UserError(
            "training a Lipschitz encoder needs deel-torchlip: "
            f"{how_to_get('lipschitz')}"
        ) from None
    return torchlip
