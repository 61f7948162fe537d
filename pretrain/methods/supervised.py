"""Adversarial training with labels: the references that label-free methods aim at.

PGD-AT: min CE(f(x + d), y), d maximises CE.
TRADES: min CE(f(x), y) + beta KL(f(x) || f(x + d)), d maximises the KL.

Sources: Madry et al. 2018, arXiv 1706.06083; Zhang et al. 2019, arXiv 1901.08573, but
with a uniform random start (at d = 0 the KL has no gradient).
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pretrain.losses import kl
from pretrain.methods.base import Batch, Cost, LossParts, Materials, Method
from pretrain.recipe import AttackSettings, Section
from robrep_eval.attacks.pgd import frozen


class Supervised(Method):
    """An encoder with a linear head f; the head is thrown away."""

    labels = True

    def __init__(self, materials: Materials) -> None:
        super().__init__(materials)
        self.head = nn.Linear(materials.encoder.dim, self.outputs())
        self.classifier = nn.Sequential(self.encoder, self.head)

    @classmethod
    def splits(cls, options: Section) -> bool:
        """Yes."""
        return True

    def projector_sets(self) -> int:
        """No projector."""
        return 0

    def outputs(self) -> int:
        """Number of classes."""
        return self.classes


class PGDAT(Supervised):
    """Trains on adversarial images alone."""

    def forward(self, batch: Batch) -> LossParts:
        """Attack, one pass."""
        y = batch.y[:, 0]

        def objective(x: Tensor) -> Tensor:
            return F.cross_entropy(self.classifier(x), y, reduction="none")

        x_adv = self.attack(objective, self.weak_view(batch), batch, self.classifier)
        return {"adversarial": F.cross_entropy(self.classifier(x_adv), y)}

    def cost(self, attack: AttackSettings) -> Cost:
        """One attacked and trained view."""
        return Cost(attack.steps + 1, attack.steps, 1)


class TradesOptions(Section):
    """Settings of TRADES."""

    beta: Annotated[float, Field(ge=0)] = 6.0


class TRADES(Supervised):
    """Clean cross-entropy and a consistency term."""

    Options = TradesOptions

    def forward(self, batch: Batch) -> LossParts:
        """Attack away from the clean logits, one pass of clean and adversarial."""
        x, y = self.weak_view(batch), batch.y[:, 0]
        with torch.no_grad(), frozen(self.classifier):
            fixed = self.classifier(x)

        def objective(images: Tensor) -> Tensor:
            return kl(fixed, self.classifier(images))

        x_adv = self.attack(objective, x, batch, self.classifier)
        clean, adversarial = self.classifier(torch.cat([x, x_adv])).chunk(2)
        return {
            "clean": F.cross_entropy(clean, y),
            "adversarial": self.options.beta * kl(clean, adversarial).mean(),
        }

    def cost(self, attack: AttackSettings) -> Cost:
        """One attacked view, its clean logits, two trained views."""
        return Cost(attack.steps + 3, attack.steps, 2)
