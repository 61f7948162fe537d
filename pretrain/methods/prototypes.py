"""Soft prototypes: the assignment to a teacher's clusters, kept under attack.

p_k(x) ~ exp(-||s_T(x) - c_k||^2 / (2 v)), s_T the teacher's standardised features, c_k
the centres of k-means on them, v their mean squared distance per coordinate times
sqrt(d) and the temperature. With q the same formula for the student's features,
L = CE(p(x), q(x + d)), d maximises it; the student starts from the teacher.

Between displacement, which keeps every coordinate, and pseudo-labels, which keep one of
a few classes: the student keeps what tells clusters apart.

Source: ours, after DynACL++ (arXiv 2303.01289: k-means pseudo-labels) and robust soft
label distillation (Zi et al. 2021, arXiv 2108.07969).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from pretrain.clustering import centres
from pretrain.losses import Spread
from pretrain.methods.base import Batch, Cost, LossParts, Materials, Method
from pretrain.precision import in_fp32, widened
from pretrain.recipe import AttackSettings, Section


class PrototypeOptions(Section):
    """Settings of the assignment."""

    clusters: Annotated[int, Field(ge=2)] = 100
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Prototypes(Method):
    """Weak views, no projector; the assignment is a fixed linear layer."""

    shares = False

    Options = PrototypeOptions

    def __init__(self, materials: Materials) -> None:
        super().__init__(materials)
        self.assignment = nn.Linear(materials.encoder.dim, self.options.clusters)
        self.assignment.requires_grad_(False)

    @classmethod
    def needs_teacher(cls, options: Section) -> bool:
        """Always."""
        return True

    @classmethod
    def splits(cls, options: Section) -> bool:
        """Yes."""
        return True

    def projector_sets(self) -> int:
        """No projector."""
        return 0

    def prepare(self, z: Tensor, seed: int) -> None:
        """The assignment as a linear layer on plain features.

        -||s - c||^2 / (2 v) is (c . s - ||c||^2 / 2) / v, up to what all k share.
        """
        spread = Spread.within(z)
        s = spread.standardise(z)
        c = centres(s, self.options.clusters, seed)
        distance = torch.cdist(s, c).amin(dim=1).square().mean()
        v = self.options.temperature * distance / s.shape[1] ** 0.5
        weight = c / v / spread.deviation
        with torch.no_grad():
            self.assignment.weight.copy_(weight)
            self.assignment.bias.copy_(
                -c.square().sum(1) / (2 * v) - weight @ spread.mean
            )

    def forward(self, batch: Batch) -> LossParts:
        """The teacher's pass, the attack, one adversarial pass."""
        assert self.teacher is not None, "checked with the recipe"
        x = self.weak_view(batch)
        with torch.no_grad():
            target = self._logits(self.teacher(x)).softmax(dim=1)

        def objective(images: Tensor) -> Tensor:
            return -(target * self._logits(self.encoder(images)).log_softmax(1)).sum(1)

        x_adv = self.attack(objective, x, batch)
        return {"adversarial": objective(x_adv).mean()}

    @in_fp32
    def _logits(self, z: Tensor) -> Tensor:
        logits: Tensor = self.assignment(widened(z))
        return logits

    def cost(self, attack: AttackSettings) -> Cost:
        """The teacher's pass, one attacked and trained view."""
        return Cost(attack.steps + 2, attack.steps, 1)
