"""Attacked features keep the direction of the original encoder's clean ones.

L = mean_x max_d 1 - cos(g(x + d), g_0(x)): FARE for features whose length says nothing,
as where heads compare directions (CLIP, k-NN).

Source: the teacher's part of DeACL (Zhang et al. 2022, arXiv 2207.10899), alone.
"""

from __future__ import annotations

from torch import Tensor

from pretrain.losses import distances
from pretrain.methods.fare import FARE


class Cosine(FARE):
    """Attacked views alone, by the angle."""

    def distance(self, z: Tensor, anchor: Tensor) -> Tensor:
        """1 - cosine similarity."""
        return distances(z, anchor, "cosine")
