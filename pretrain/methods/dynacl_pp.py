"""DynACL++: pseudo-labels from a DynACL encoder, then adversarial training on them.

k-means on the teacher's features gives pseudo-labels; a linear head is fitted to them
on the frozen encoder; then encoder and head are trained by TRADES. No true labels.

Source: Luo et al. 2023, arXiv 2303.01289. Clusters come from the published (BN_a)
features; the head is run to convergence instead of for 10 epochs.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.clustering import cluster
from pretrain.methods.supervised import TRADES, TradesOptions
from pretrain.recipe import Section
from robrep_eval.probes.logistic import fit_linear

PENALTY = 1e-3


class DynACLPlusOptions(TradesOptions):
    """Settings of the post-processing."""

    clusters: Annotated[int, Field(ge=2)] = 10


class DynACLPlus(TRADES):
    """TRADES with pseudo-labels, from a DynACL encoder."""

    Options = DynACLPlusOptions
    labels = False

    @classmethod
    def needs_teacher(cls, options: Section) -> bool:
        """Always: the DynACL encoder."""
        return True

    def outputs(self) -> int:
        """Number of clusters."""
        return int(self.options.clusters)

    def prepare(self, z: Tensor, seed: int) -> Tensor:
        """Pseudo-labels, and the head fitted to them."""
        y = cluster(z, self.outputs(), seed)
        fitted = fit_linear(z, y, classes=self.outputs(), l2=PENALTY, tolerance=1e-4)
        with torch.no_grad():
            self.head.weight.copy_(fitted.weight)
            self.head.bias.copy_(fitted.bias)
        return y[:, None]
