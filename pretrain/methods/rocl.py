"""RoCL: an adversarial view as a third positive.

L = sum over both positives of NT-Xent on {v1, v2, v1 + d}
    + weight * NT-Xent(v1 + d, v2),
where d maximises NT-Xent(v1 + d, v2).

Source: Kim et al. 2020, arXiv 2006.07589, with the sum of log-ratios of the authors'
code. Their last term has a forward pass of its own; here it shares the first one's,
which saves two of five trained views and differs in batch statistics alone.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from pretrain.losses import against, multi_positive, nt_xent
from pretrain.methods.base import Batch, Cost, LossParts, Method
from pretrain.recipe import AttackSettings, Section
from robrep_eval.attacks.pgd import frozen


class RoCLOptions(Section):
    """Settings of RoCL."""

    temperature: Annotated[float, Field(gt=0)] = 0.5
    weight: Annotated[float, Field(ge=0)] = 1 / 256
    """Of the extra term; 1 / lambda."""


class RoCL(Method):
    """Two clean views and an adversarial one, one network."""

    Options = RoCLOptions

    def forward(self, batch: Batch) -> LossParts:
        """Attack on the first view, one pass of all three."""
        temperature = self.options.temperature
        v1, v2 = self.view(batch), self.view(batch)
        with torch.no_grad(), frozen(self.encoder, self.projector):
            fixed = self.project(v2)
        contrast = against([fixed], temperature=temperature)
        v_adv = self.attack(lambda x: contrast(self.project(x)), v1, batch)
        u1, u2, u_adv = self.project(torch.cat([v1, v2, v_adv])).chunk(3)
        extra = nt_xent(u_adv, u2, temperature=temperature)
        return {
            "contrast": 2 * multi_positive([u1, u2, u_adv], temperature=temperature),
            "extra": self.options.weight * extra,
        }

    def cost(self, attack: AttackSettings) -> Cost:
        """One attacked view, its fixed partner, three trained views."""
        return Cost(attack.steps + 4, attack.steps, 3)
