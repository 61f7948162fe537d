"""Ten thousand colour images of ten made-up classes, in the shape of CIFAR-10."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from zoo.datasets.base import Dataset, from_array


@cache
def read(name: str, split: str, data_dir: Path) -> Dataset:
    """Noisy copies of ten patterns; 10,000 to test, 500 to train."""
    rng = np.random.default_rng(0 if split == "test" else 1)
    patterns = np.random.default_rng(2).integers(64, 192, (10, 3, 4, 4))
    n = 10_000 if split == "test" else 500
    labels = rng.integers(0, 10, n)
    clean = patterns.astype(np.uint8)[labels].repeat(8, axis=2).repeat(8, axis=3)
    images = clean + rng.integers(-60, 60, clean.shape, dtype=np.int8).astype(np.uint8)
    return from_array(
        images,
        labels.astype(np.int64),
        name=name,
        split=split,
        classes=[str(c) for c in range(10)],
    )
