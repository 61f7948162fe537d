"""k-NN on frozen features, as a figure beside the probe that nothing was fitted for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robrep_eval.probes.rows import Rows
from zoo.selection import spaced
from zoo.threads import fitting_threads

KNN_NEIGHBOURS = 20
KNN_TEMPERATURE = 0.1
MAX_KNN_TRAIN = 50_000
KNN_MEBIBYTES = 256
"""Of distances that are in memory together."""


def knn_of_parts(rows: Rows, parts: Sequence[Tensor], y: Tensor) -> float:
    """As `knn_accuracy`, of features that need not fit in memory.

    Args:
        rows: Training points.
        parts: Test points, (n, d) each.
        y: Their labels, (N,).
    """
    near = nearest_rows(rows)
    z_train, y_train = rows.first(near), rows.y[near]
    labels = y.split([len(z) for z in parts])
    right = [
        knn_right(z_train, y_train, z.float(), own)
        for z, own in zip(parts, labels, strict=True)
    ]
    return sum(right) / len(y)


def nearest_rows(rows: Rows) -> Tensor:
    """Numbers of the training rows that k-NN uses: at most 50,000.

    The first ones; where the rows are sorted by class, evenly spaced ones.
    """
    if len(rows) > MAX_KNN_TRAIN and bool((rows.y.diff() >= 0).all()):
        return torch.from_numpy(spaced(len(rows), MAX_KNN_TRAIN))
    return torch.arange(min(len(rows), MAX_KNN_TRAIN))


def knn_accuracy(
    z_train: Tensor, y_train: Tensor, z_test: Tensor, y_test: Tensor
) -> float:
    """Cosine k-NN with weights exp(-distance / T), k = 20 (Wu et al. 2018, 1805.01978).

    At most 50,000 training points are used; see `nearest_rows`.
    """
    near = nearest_rows(Rows.of(z_train, y_train))
    right = knn_right(z_train[near], y_train[near], z_test, y_test)
    return right / len(y_test)


@fitting_threads()
def knn_right(z_train: Tensor, y_train: Tensor, z_test: Tensor, y_test: Tensor) -> int:
    """How many test points k-NN gets right, by blocks of scikit-learn's."""
    from sklearn import config_context
    from sklearn.neighbors import KNeighborsClassifier

    def weigh(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.exp(-distance / KNN_TEMPERATURE)

    model = KNeighborsClassifier(
        min(KNN_NEIGHBOURS, len(z_train)),
        metric="cosine",
        algorithm="brute",
        weights=weigh,
    )
    model.fit(z_train.numpy(), y_train.numpy())
    with config_context(working_memory=KNN_MEBIBYTES):
        return int((model.predict(z_test.numpy()) == y_test.numpy()).sum())
