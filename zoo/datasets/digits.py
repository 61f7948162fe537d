"""scikit-learn's 8x8 digits (UCI optical recognition), embedded in that package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zoo.datasets.base import Dataset, from_array


def read(name: str, split: str, data_dir: Path) -> Dataset:
    """Every fifth image is a test image: 360 of 1,797. Pixels run from 0 to 16."""
    return _labelled(name, split, [str(digit) for digit in range(10)])


def read_parity(name: str, split: str, data_dir: Path) -> Dataset:
    """The same images in the same order; the label says whether the digit is odd."""
    return _labelled(name, split, ["even", "odd"])


def _labelled(name: str, split: str, classes: Sequence[str]) -> Dataset:
    """Digit d has the label d modulo the number of classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    is_test = np.arange(len(bunch.images)) % 5 == 0
    chosen = is_test if split == "test" else ~is_test
    return from_array(
        bunch.images[chosen][:, None].astype(np.uint8),
        bunch.target[chosen].astype(np.int64) % len(classes),
        name=name,
        split=split,
        classes=classes,
        levels=16,
    )
