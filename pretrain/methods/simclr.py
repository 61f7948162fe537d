"""SimCLR, the clean baseline and the usual teacher.

L = NT-Xent(v1, v2).

Source: Chen et al. 2020, arXiv 2002.05709.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from pretrain.losses import nt_xent
from pretrain.methods.base import Batch, Cost, LossParts, Method
from pretrain.recipe import AttackSettings, Section


class SimCLROptions(Section):
    """Settings of SimCLR."""

    temperature: Annotated[float, Field(gt=0)] = 0.5


class SimCLR(Method):
    """Two clean views, one network."""

    Options = SimCLROptions
    adversarial = False

    def forward(self, batch: Batch) -> LossParts:
        """One pass of both views."""
        v1, v2 = self.view(batch), self.view(batch)
        u1, u2 = self.project(torch.cat([v1, v2])).chunk(2)
        return {"contrast": nt_xent(u1, u2, temperature=self.options.temperature)}

    def cost(self, attack: AttackSettings) -> Cost:
        """Two trained views."""
        return Cost(2, 0, 2)
