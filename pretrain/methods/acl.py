"""ACL, dual stream: contrast of clean views and of jointly attacked views.

L = 1/2 [ NT-Xent(v1, v2; BN_c) + NT-Xent(v1 + d1, v2 + d2; BN_a) ],
where (d1, d2) maximise the second term together.

Source: Jiang et al. 2020, arXiv 2010.13337.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain import batchnorm
from pretrain.batchnorm import ADVERSARIAL, CLEAN
from pretrain.losses import nt_xent
from pretrain.methods.base import Batch, Cost, LossParts, Method
from pretrain.recipe import AttackSettings, Section


class ACLOptions(Section):
    """Settings of ACL."""

    temperature: Annotated[float, Field(gt=0)] = 0.5


class ACL(Method):
    """Shared weights, a set of batch norms for each stream."""

    Options = ACLOptions

    def sets(self) -> int:
        """Clean and adversarial."""
        return 2

    def forward(self, batch: Batch) -> LossParts:
        """Attack, adversarial pass, clean pass."""
        v = torch.cat([self.view(batch), self.view(batch)])
        v_adv = self.attack(self._contrast, v, batch, norms=ADVERSARIAL)
        networks = (self.encoder, self.projector)
        with batchnorm.using(ADVERSARIAL, *networks):
            adversarial = self._contrast(v_adv)
        with batchnorm.using(CLEAN, *networks):
            clean = self._contrast(v)
        return {"clean": clean / 2, "adversarial": adversarial / 2}

    def cost(self, attack: AttackSettings) -> Cost:
        """Both views attacked; four trained views."""
        return Cost(2 * attack.steps + 4, 2 * attack.steps, 4)

    def _contrast(self, views: Tensor) -> Tensor:
        u1, u2 = self.project(views).chunk(2)
        return nt_xent(u1, u2, temperature=self.options.temperature)
