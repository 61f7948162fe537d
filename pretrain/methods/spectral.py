"""Spectral clusters: pseudo-labels from a teacher's neighbourhood graph, under attack.

Each image's target p is the share of its nearest neighbours (by the teacher's features)
in each cluster of their graph. L = CE(p(x), f(x + d)), d maximises it; f is encoder and
linear head, the encoder starts as the teacher, the head fitted to the clusters.

Unlike in `prototypes`, targets need no pass of the teacher while training, and clusters
of any shape are found, which agree better with classes that nobody has told.

Source: ours, after DynACL++ (arXiv 2303.01289: k-means pseudo-labels) and spectral
clustering (Ng, Jordan & Weiss 2001).
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pretrain.clustering import SAMPLE, votes
from pretrain.methods.base import Batch, LossParts
from pretrain.methods.supervised import PGDAT
from pretrain.recipe import Section
from robrep_eval.probes.logistic import fit_linear

PENALTY = 1e-3
"""L2 penalty of the head that training starts with."""


class SpectralOptions(Section):
    """Settings of the targets."""

    clusters: Annotated[int, Field(ge=2)] = 100
    neighbours: Annotated[int, Field(ge=1)] = 9
    """That vote for each image, itself included."""


class Spectral(PGDAT):
    """PGD-AT with a teacher's soft pseudo-labels."""

    Options = SpectralOptions
    labels = False

    @classmethod
    def needs_teacher(cls, options: Section) -> bool:
        """Always."""
        return True

    def outputs(self) -> int:
        """Number of clusters."""
        return int(self.options.clusters)

    def prepare(self, z: Tensor, seed: int) -> Tensor:
        """Votes, and the head fitted to the first of them."""
        y = votes(z, self.outputs(), self.options.neighbours, seed)
        few = slice(SAMPLE)
        fitted = fit_linear(
            z[few], y[few, 0], classes=self.outputs(), l2=PENALTY, tolerance=1e-4
        )
        with torch.no_grad():
            self.head.weight.copy_(fitted.weight)
            self.head.bias.copy_(fitted.bias)
        return y

    def forward(self, batch: Batch) -> LossParts:
        """Attack, one pass."""
        p = F.one_hot(batch.y, self.outputs()).float().mean(dim=1)  # (n, clusters)

        def objective(x: Tensor) -> Tensor:
            return F.cross_entropy(self.classifier(x), p, reduction="none")

        x_adv = self.attack(objective, self.weak_view(batch), batch, self.classifier)
        return {"adversarial": F.cross_entropy(self.classifier(x_adv), p)}
