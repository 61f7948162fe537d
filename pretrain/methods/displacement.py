"""Standardised displacement from an encoder that exists: FARE in the features' units.

L = mean_x dist(g(x), g_0(x)) + weight * mean_x max_d dist(g(x + d), g_0(x)),
dist(a, b) = mean_i ((a_i - b_i) / sigma_i)^2, sigma_i: deviation of feature i of g_0
over training images.

A probe sees standardised features, so a feature that varies little counts as much as
one that varies widely. It is TARRL with `reference: teacher`, with a spread that is
measured once instead of on each batch.

Source: ours, after Nguyen et al. 2022 (arXiv 2203.07596).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.losses import Spread, distances
from pretrain.methods.anchored import Anchored
from pretrain.methods.base import Batch, Cost, LossParts, Materials
from pretrain.recipe import AttackSettings, Section


class DisplacementOptions(Section):
    """Settings of the displacement."""

    weight: Annotated[float, Field(ge=0)] = 10.0
    """Of attacked images beside clean ones."""


class Displacement(Anchored):
    """Clean and attacked views in one pass."""

    Options = DisplacementOptions
    prepared_on = 4096
    mean: Tensor
    deviation: Tensor

    def __init__(self, materials: Materials) -> None:
        super().__init__(materials)
        width = (materials.teacher or materials.encoder).dim
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def prepare(self, z: Tensor, seed: int) -> None:
        """Measures the spread of the anchor's features."""
        spread = Spread.within(z)
        self.mean.copy_(spread.mean)
        self.deviation.copy_(spread.deviation)

    def distance(self, z: Tensor, anchor: Tensor) -> Tensor:
        """Mean squared distance of standardised features."""
        spread = Spread(self.mean, self.deviation)
        return distances(spread.standardise(z), spread.standardise(anchor), "squared")

    def forward(self, batch: Batch) -> LossParts:
        """The anchor's pass, the attack, one pass of clean and attacked images."""
        x, x_adv, anchor = self.attacked(batch)
        z, z_adv = self.follow(torch.cat([x, x_adv])).chunk(2)
        return {
            "clean": self.distance(z, anchor).mean(),
            "displacement": self.options.weight * self.distance(z_adv, anchor).mean(),
        }

    def cost(self, attack: AttackSettings) -> Cost:
        """The anchor's pass, one attacked view, two trained views."""
        return Cost(attack.steps + 3, attack.steps, 2)
