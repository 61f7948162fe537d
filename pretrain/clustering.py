"""Pseudo-labels and prototypes: k-means on features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def centres(z: Tensor, count: int, seed: int) -> Tensor:
    """Centres (count, d) of clusters of features (N, d), N >= count; reproducible."""
    return torch.from_numpy(_fitted(z, count, seed).cluster_centers_).to(z)


def cluster(z: Tensor, count: int, seed: int) -> Tensor:
    """Cluster numbers (N,), int64, of features (N, d), N >= count; reproducible."""
    return torch.from_numpy(_fitted(z, count, seed).labels_).long()


def _fitted(z: Tensor, count: int, seed: int) -> Any:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind = KMeans if len(z) <= 20_000 else MiniBatchKMeans
    return kind(count, n_init=3, random_state=seed).fit(z.numpy())
