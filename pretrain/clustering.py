"""Pseudo-labels and prototypes: k-means, and clusters of a neighbourhood graph."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.threads import fitting_threads

SAMPLE = 10_000
"""Images that a graph joins; the others vote with those among them that are nearest."""
EDGES = 15
"""Nearest neighbours that each image of a graph is joined to."""
NEGLIGIBLE = 1e-6
"""Variance, beside the largest, of directions that count as constant."""


@fitting_threads()
def centres(z: Tensor, count: int, seed: int) -> Tensor:
    """Centres (count, d) of clusters of features (N, d), N >= count; reproducible."""
    return torch.from_numpy(_fitted(z, count, seed).cluster_centers_).to(z)


@fitting_threads()
def cluster(z: Tensor, count: int, seed: int) -> Tensor:
    """Cluster numbers (N,), int64, of features (N, d), N >= count; reproducible."""
    return torch.from_numpy(_fitted(z, count, seed).labels_).long()


@fitting_threads()
def votes(z: Tensor, count: int, voters: int, seed: int) -> Tensor:
    """Cluster numbers (N, voters), int64, of the images nearest to each image.

    Spectral clustering of the first images' neighbourhood graph: clusters may have any
    shape, where those of k-means are round. An image of the graph is its own first
    voter. The cost grows linearly with N.

    Args:
        z: Features (N, d), N > `count` and N >= `voters`.
        count: Clusters.
        voters: Nearest images of the graph that vote for each image.
        seed: Makes it reproducible.

    Source: Ng, Jordan & Weiss 2001, "On spectral clustering", as in scikit-learn.
    """
    from sklearn.cluster import SpectralClustering
    from sklearn.neighbors import kneighbors_graph

    rows = half_whitened(z)
    sample = rows[:SAMPLE]
    edges = kneighbors_graph(sample.numpy(), min(EDGES, len(sample) - 1))
    made = SpectralClustering(
        count,
        affinity="precomputed",
        eigen_solver="arpack",
        n_init=3,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # A graph in several parts is welcome: each is a cluster or more.
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        numbers = made.fit_predict(edges.maximum(edges.T))
    nearest = [
        (part @ sample.T).topk(voters, dim=1).indices for part in rows.split(1000)
    ]
    return torch.from_numpy(numbers).long()[torch.cat(nearest)]


def half_whitened(z: Tensor) -> Tensor:
    """Unit rows (N, r): principal components, each over the root of its deviation.

    Between plain features, whose neighbours agree in a few strong components, and
    whitened ones, where noise counts as much as they do.
    """
    centred = z.double() - z.double().mean(dim=0)
    values: Tensor
    values, vectors = torch.linalg.eigh(torch.cov(centred.T))
    kept = values > NEGLIGIBLE * values.amax()
    scaled = centred @ (vectors[:, kept] / values[kept] ** 0.25)
    return F.normalize(scaled, dim=1).float()


def _fitted(z: Tensor, count: int, seed: int) -> Any:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    kind = KMeans if len(z) <= 20_000 else MiniBatchKMeans
    return kind(count, n_init=3, random_state=seed).fit(z.numpy())
