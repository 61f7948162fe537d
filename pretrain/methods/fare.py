"""FARE: attacked features stay where the original encoder's clean ones are.

L = mean_x max_d ||g(x + d) - g_0(x)||^2, summed over features, without any scale.

Source: Schlarmann et al. 2024, arXiv 2402.12336.
"""

from __future__ import annotations

from torch import Tensor

from pretrain.losses import squared_lengths
from pretrain.methods.anchored import Anchored
from pretrain.methods.base import Batch, Cost, LossParts
from pretrain.recipe import AttackSettings


class FARE(Anchored):
    """Attacked views alone."""

    def distance(self, z: Tensor, anchor: Tensor) -> Tensor:
        """Squared L2."""
        return squared_lengths(z - anchor)

    def forward(self, batch: Batch) -> LossParts:
        """The anchor's pass, the attack, one adversarial pass."""
        _, x_adv, anchor = self.attacked(batch)
        return {"adversarial": self.distance(self.follow(x_adv), anchor).mean()}

    def cost(self, attack: AttackSettings) -> Cost:
        """The anchor's pass, one attacked and trained view."""
        return Cost(attack.steps + 2, attack.steps, 1)
