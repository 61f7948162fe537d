"""LORE: FARE under a constraint on the clean features, in place of a weight.

min_g mean_x max_d ||g(x + d) - g_0(x)||^2
subject to c(x) = ||g(x) - g_0(x)||^2 - rho ||g_0(x)||^2 <= 0 for all x,

by its Lagrangian: lambda(x) c(x) is added, lambda(x) = softplus(MLP(g_0(x))) >= 0, and
the MLP climbs lambda(x) c(x) in one of every `every` steps, at a rate of its own.

Both players share one backward pass: each sees the other's factor as a constant, so the
loss is max_d ||.||^2 + lambda c with lambda fixed, less lambda c with c fixed.

The multiplier network reads features of unit length. Of raw ones, long and many, one
step of the published rate moves lambda by tens: 1,280 features of squared length 2,100
had it at 12 after 19 steps, its term up to two thirds of the attacked features'.

Source: arXiv 2505.18884 (LORE), with its multiplier network, rates and ratio of steps.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pretrain.losses import squared_lengths
from pretrain.methods.base import Batch, Cost, LossParts, Materials
from pretrain.methods.fare import FARE
from pretrain.precision import in_fp32, widened
from pretrain.recipe import AttackSettings, Section


class LoreOptions(Section):
    """Settings of the constraint."""

    rho: Annotated[float, Field(gt=0)] = 0.1
    """Largest squared distance of clean features from the original ones, as a share of
    the squared length of those."""
    every: Annotated[int, Field(ge=1)] = 5
    """Steps of the encoder for one of the multiplier."""
    multiplier_lr: Annotated[float, Field(gt=0)] = 5e-4
    """Peak learning rate of the multiplier network."""
    hidden: Annotated[int, Field(ge=1)] = 512
    """Width of its hidden layer."""


class LORE(FARE):
    """Clean and attacked views in one pass."""

    Options = LoreOptions

    def __init__(self, materials: Materials) -> None:
        super().__init__(materials)
        width = (materials.teacher or materials.encoder).dim
        hidden = self.options.hidden
        self.multiplier = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def rates(self) -> dict[nn.Module, float]:
        """Of the multiplier network."""
        return {self.multiplier: self.options.multiplier_lr}

    def before_step(self, done: int) -> None:
        """The multiplier rests in all but one of every `every` steps."""
        if (done + 1) % self.options.every:
            for weight in self.multiplier.parameters():
                weight.grad = None

    def forward(self, batch: Batch) -> LossParts:
        """The anchor's pass, the attack, one pass of clean and attacked images."""
        x, x_adv, anchor = self.attacked(batch)
        z, z_adv = self.follow(torch.cat([x, x_adv])).chunk(2)
        excess = self.excess(z, anchor)
        price = self.price(anchor)
        return {
            "adversarial": self.distance(z_adv, anchor).mean(),
            "constraint": (price.detach() * excess).mean(),
            "multiplier": -(price * excess.detach()).mean(),
        }

    def excess(self, z: Tensor, anchor: Tensor) -> Tensor:
        """c(x) of clean features (N, d), (N,): positive where they drifted too far."""
        allowed: Tensor = self.options.rho * squared_lengths(anchor)
        return self.distance(z, anchor) - allowed

    @in_fp32
    def price(self, anchor: Tensor) -> Tensor:
        """lambda(x) > 0 for the anchor's features (N, d), (N,); their length is no
        matter."""
        direction = F.normalize(widened(anchor), dim=1)
        price: Tensor = F.softplus(self.multiplier(direction)[:, 0])
        return price

    def cost(self, attack: AttackSettings) -> Cost:
        """The anchor's pass, one attacked view, two trained views."""
        return Cost(attack.steps + 3, attack.steps, 2)
