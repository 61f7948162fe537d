"""Pseudo-labels: k-means on features."""

from __future__ import annotations

import torch
from torch import Tensor


def cluster(z: Tensor, count: int, seed: int) -> Tensor:
    """Cluster numbers (N,), int64, of features (N, d), N >= count; reproducible."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind = KMeans if len(z) <= 20_000 else MiniBatchKMeans
    found = kind(count, n_init=3, random_state=seed).fit_predict(z.numpy())
    return torch.from_numpy(found).long()
