"""DynACL: ACL with augmentation that fades, and a momentum branch.

L = 1/2 [ (2 - w) NT-Xent(q(v1), k(v2); BN_c)
          + w NT-Xent(q(v1 + d1), k(v2 + d2); BN_a) ]
with augmentation strength s falling from 1 in equal stages, w = 1 + rate (1 - s), and
k an exponential average of q. The published encoder is k with BN_a.

Source: Luo et al. 2023, arXiv 2303.01289. The momentum branch and its order of
operations follow the authors' code.
"""

from __future__ import annotations

import copy
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pretrain import batchnorm
from pretrain.batchnorm import ADVERSARIAL, CLEAN
from pretrain.losses import nt_xent
from pretrain.methods.base import Batch, Cost, LossParts, Materials, Method
from pretrain.recipe import AttackSettings, Section


class DynACLOptions(Section):
    """Settings of DynACL."""

    temperature: Annotated[float, Field(gt=0)] = 0.5
    stages: Annotated[int, Field(ge=1)] = 20
    """In how many equal stages the augmentation fades; 1,000 epochs / 50 published."""
    rate: Annotated[float, Field(ge=0, le=1)] = 2 / 3
    """How much weight moves to the adversarial stream as augmentation fades."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99


class DynACL(Method):
    """Query and key branch, two sets of batch norms each."""

    shares = False

    Options = DynACLOptions

    def __init__(self, materials: Materials) -> None:
        super().__init__(materials)
        self.query = nn.Sequential(self.encoder, self.projector)
        self.key = copy.deepcopy(self.query).requires_grad_(False)

    def sets(self) -> int:
        """Clean and adversarial."""
        return 2

    def published(self) -> nn.Module:
        """The averaged encoder."""
        return self.key[0]

    def strength(self, progress: float) -> float:
        """Of the augmentation: 1 in the first stage, 1 / stages in the last."""
        stages: int = self.options.stages
        return 1 - int(progress * stages) / stages

    def forward(self, batch: Batch) -> LossParts:
        """Attack, adversarial pass, clean pass, average."""
        s = self.strength(batch.progress)
        w = 1 + self.options.rate * (1 - s)
        v = torch.cat([self.view(batch, s), self.view(batch, s)])
        networks = (self.query, self.key)
        v_adv = self.attack(self._contrast, v, batch, *networks, norms=ADVERSARIAL)
        with batchnorm.using(ADVERSARIAL, *networks):
            adversarial = self._contrast(v_adv)
        with batchnorm.using(CLEAN, *networks):
            clean = self._contrast(v)
        self._follow()
        return {"clean": (2 - w) / 2 * clean, "adversarial": w / 2 * adversarial}

    def cost(self, attack: AttackSettings) -> Cost:
        """As ACL, but the key branch is not trained."""
        return Cost(2 * attack.steps + 4, 2 * attack.steps, 2)

    def _contrast(self, views: Tensor) -> Tensor:
        v1, v2 = views.chunk(2)
        u1, u2 = self.query(v1), self.key(v2)
        return nt_xent(u1, u2, temperature=self.options.temperature)

    def _follow(self) -> None:
        """k <- m k + (1 - m) q, weights only; k's statistics are of its own passes."""
        follow = get_ema_multi_avg_fn(self.options.momentum)
        follow(list(self.key.parameters()), list(self.query.parameters()), 1)
