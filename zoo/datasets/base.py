"""What a dataset is: images by index as float32 in [0, 1], and integer labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.errors import UserError

Pixels = npt.NDArray[Any]
Fetch = Callable[[npt.NDArray[np.int64]], Pixels]


class Dataset:
    """Labelled images of one split, read as needed.

    Pixels are kept as the integers they were published as, or left on disk, and only
    the images asked for become floats: memory does not grow with use.

    Args:
        name: Name in the registry.
        split: "train" or "test".
        fetch: Maps an int64 array of positions to images (n, C, H, W), uint8, or
            float32 in [0, 1] with `levels` 1.
        labels: All labels, int64 (N,).
        classes: Names of the classes.
        shape: (C, H, W).
        levels: The integer that means 1.0; 255 for most images, 16 for digits.
        notes: What people should know about how these images were read.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        fetch: Fetch,
        labels: npt.NDArray[np.int64],
        classes: Sequence[str],
        shape: tuple[int, int, int],
        levels: int = 255,
        notes: Sequence[str] = (),
    ) -> None:
        if not len(labels):
            raise UserError(f"dataset '{name}' has no images in split '{split}'")
        self.name = name
        self.split = split
        self.classes = tuple(classes)
        self.shape = shape
        self.levels = levels
        self.notes = tuple(notes)
        self._fetch = fetch
        self._labels = labels
        self.positions = np.arange(len(labels))
        """Where each image stands in the published split."""

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def labels(self) -> Tensor:
        """(N,) int64."""
        return torch.from_numpy(self._labels[self.positions])

    def integers(self, indices: Sequence[int] | slice | Tensor) -> Tensor:
        """Images as published, (n, C, H, W), mostly uint8."""
        if isinstance(indices, Tensor):
            indices = indices.tolist()
        return torch.from_numpy(self._fetch(self.positions[indices]))

    def images(self, indices: Sequence[int] | slice | Tensor) -> Tensor:
        """Images as float32 in [0, 1], (n, C, H, W), contiguous."""
        return self.integers(indices).float().div_(self.levels)

    def subset(self, indices: Sequence[int] | slice | Tensor) -> Dataset:
        """The same dataset restricted to these positions; copies no image."""
        if isinstance(indices, Tensor):
            indices = indices.tolist()
        part = Dataset.__new__(Dataset)
        part.__dict__.update(
            {k: v for k, v in self.__dict__.items() if k != "labels"},
            positions=self.positions[indices],
        )
        return part

    def take(self, limit: int | None) -> Dataset:
        """The first `limit` images; evenly spaced ones where the split is sorted.

        The field evaluates the first n images; on a folder sorted by class those
        would all be of one class.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise UserError(f"the number of examples must be positive, not {limit}")
        if bool((self.labels.diff() >= 0).all()) and len(self.classes) > 1:
            spaced = np.linspace(0, len(self) - 1, limit).round().astype(np.int64)
            return self.subset(spaced.tolist())
        return self.subset(slice(limit))

    def fingerprint(self) -> str:
        """Hex SHA-256 over shape, labels and all pixels of this (sub)set, in order."""
        digest = hashlib.sha256(f"{self.shape}|{self.levels}|{len(self)}".encode())
        digest.update(self.labels.numpy().tobytes())
        for start in range(0, len(self), 4096):
            block = self.integers(slice(start, start + 4096))
            digest.update(block.contiguous().numpy().tobytes())
        return digest.hexdigest()


def from_array(
    images: Pixels,
    labels: npt.NDArray[np.int64],
    *,
    name: str,
    split: str,
    classes: Sequence[str],
    levels: int = 255,
) -> Dataset:
    """A dataset over an array (N, C, H, W), memory-mapped or not.

    Raises:
        UserError: images and labels differ in number, or a label has no class.
    """
    if len(images) != len(labels):
        raise UserError(
            f"dataset '{name}' has {len(images)} images but {len(labels)} labels; "
            "a file is damaged"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
        raise UserError(
            f"dataset '{name}' has labels from {labels.min()} to {labels.max()} but "
            f"{len(classes)} classes"
        )
    _, c, h, w = images.shape
    return Dataset(
        name=name,
        split=split,
        fetch=lambda at: np.ascontiguousarray(images[at]),
        labels=labels.astype(np.int64),
        classes=classes,
        shape=(c, h, w),
        levels=levels,
    )


def from_tensors(
    x: Tensor, y: Tensor, *, name: str, classes: Sequence[str], split: str = "test"
) -> Dataset:
    """A dataset over people's own tensors.

    Args:
        x: Images (N, C, H, W) in [0, 1], any floating dtype.
        y: Labels (N,), integers in [0, len(classes)).
        name: For the record.
        classes: Names of the classes.
        split: "train" or "test".

    Raises:
        UserError: wrong rank, NaN, pixels outside [0, 1] (with the range found),
            labels that do not fit.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise UserError(
            f"images must be floats of shape (N, C, H, W), not {x.dtype} of shape "
            f"{tuple(x.shape)}"
        )
    check_pixels(x)
    labels = y.detach().cpu().numpy().astype(np.int64)
    return from_array(
        x.detach().cpu().float().numpy(),
        labels,
        name=name,
        split=split,
        classes=classes,
        levels=1,
    )


def check_pixels(x: Tensor) -> None:
    """Raises `UserError` if a pixel is NaN or outside [0, 1]."""
    if not bool(x.isfinite().all()):
        raise UserError("images hold NaN or infinite pixels")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise UserError(
            f"pixels span [{low:.3g}, {high:.3g}], not [0, 1]; pass raw images divided "
            "by their largest value and let the model normalise them"
        )
