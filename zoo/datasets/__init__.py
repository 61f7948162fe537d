"""Datasets: one registry, one form (float32 NCHW in [0, 1], int64 labels).

Listing imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.datasets.loading import check
from zoo.datasets.registry import DatasetInfo, find, get, is_per_class, registry

if TYPE_CHECKING:
    from pathlib import Path

    from zoo.datasets.base import Dataset

__all__ = ["DatasetInfo", "check", "find", "get", "is_per_class", "load", "registry"]


def load(
    name: str, split: str, *, data_dir: Path | None = None, called: str | None = None
) -> Dataset:
    """Reads a dataset.

    Args:
        name: A registered name, `imagefolder:PATH`, `imagelist:FILE.csv`, or
            `images:PATH` for training images without labels; NAME@CxHxW resizes the
            images (see `zoo.datasets.names`).
        split: "train" or "test".
        data_dir: Where a copy lies, or where to download to; by default robrep's
            own folder under the platform's cache.
        called: Name of an image folder in records, in place of the last part of PATH.

    Raises:
        UserError: unknown name or split; missing or broken files, with the place
            searched and how to get them.
    """
    from zoo.datasets.loading import load as load_

    if called is not None:
        check(name, called)
    return load_(name, split, data_dir, called)
