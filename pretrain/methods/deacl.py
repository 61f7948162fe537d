"""DeACL: a clean teacher first, then a student that is robust around its features.

L = -cos(g(x), g_T(x)) - weight * cos(g(x + d), g(x)),
where d maximises -cos(g(x + d), g_T(x)); the student starts from the teacher.

Source: Zhang et al. 2022, arXiv 2207.10899; start and attack as in the authors' code.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.losses import cosine_loss
from pretrain.methods.base import Batch, Cost, LossParts, Method
from pretrain.recipe import AttackSettings, Section


class DeACLOptions(Section):
    """Settings of DeACL."""

    weight: Annotated[float, Field(ge=0)] = 2.0


class DeACL(Method):
    """Weak views, no projector."""

    Options = DeACLOptions
    matches = True

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

    def forward(self, batch: Batch) -> LossParts:
        """Attack, one pass of clean and adversarial images."""
        assert self.teacher is not None, "checked with the recipe"
        x = self.weak_view(batch)
        with torch.no_grad():
            target = self.teacher(x)

        def objective(images: Tensor) -> Tensor:
            return cosine_loss(self.follow(images), target)

        x_adv = self.attack(objective, x, batch)
        z, z_adv = self.follow(torch.cat([x, x_adv])).chunk(2)
        return {
            "clean": cosine_loss(z, target).mean(),
            "adversarial": self.options.weight * cosine_loss(z_adv, z).mean(),
        }

    def cost(self, attack: AttackSettings) -> Cost:
        """One attacked view, the teacher's pass, two trained views."""
        return Cost(attack.steps + 3, attack.steps, 2)
