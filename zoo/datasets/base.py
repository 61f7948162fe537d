"""What a dataset is: images by index as float32 in [0, 1], and integer labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.datasets import workers as reading
from zoo.datasets.checks import check_pixels, whole_labels
from zoo.errors import UserError
from zoo.layout import ON_CPU, Layout
from zoo.selection import in_turn, spaced

Pixels = npt.NDArray[Any]
HASHED_BYTES = 1 << 26
"""Of pixels that are in memory together while they are hashed."""
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
        labels: All labels, (N,), whole numbers below the number of classes; see
            `whole_labels`. Of images without labels: zeros, which say how many.
        classes: Names of the classes; of images without labels: none.
        shape: (C, H, W).
        levels: The integer that means 1.0; 255 for most images, 16 for digits.
        notes: What people should know about how these images were read.
        hash_files: Gives the hex SHA-256 of the files that the whole split is read
            from.
        list_files: The same of their paths and sizes, without reading them.
    """

    def __init__(
        self,
        *,
        name: str,
        split: str,
        fetch: Fetch,
        labels: npt.NDArray[Any],
        classes: Sequence[str],
        shape: tuple[int, int, int],
        levels: int = 255,
        notes: Sequence[str] = (),
        hash_files: Callable[[], str] | None = None,
        list_files: Callable[[], str] | None = None,
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
        self.hash_files = hash_files
        self.list_files = list_files
        self._labels = whole_labels(labels, max(1, len(classes)), name)
        self.positions = np.arange(len(labels))
        """Where each image stands in the published split."""
        self.workers = 0
        """Processes that read images ahead of `blocks` and `batches`."""

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def labels(self) -> Tensor:
        """(N,) int64.

        Raises:
            UserError: the images have none.
        """
        self.check_labelled()
        return torch.from_numpy(self._labels[self.positions])

    @property
    def labelled(self) -> bool:
        """False for images without labels."""
        return bool(self.classes)

    def check_labelled(self) -> None:
        """Raises `UserError` for images without labels."""
        if not self.labelled:
            raise UserError(
                f"the images of '{self.name}' have no labels, which this needs; put "
                "them into class folders (imagefolder:PATH), or give a list of them "
                "with labels (imagelist:FILE.csv)"
            )

    def integers(self, indices: Sequence[int] | slice | Tensor) -> Tensor:
        """Images as published, (n, C, H, W), mostly uint8."""
        if isinstance(indices, Tensor):
            indices = indices.tolist()
        return torch.from_numpy(self._fetch(self.positions[indices]))

    def images(self, indices: Sequence[int] | slice | Tensor) -> Tensor:
        """Images as float32 in [0, 1], (n, C, H, W), contiguous."""
        return self.integers(indices).float().div_(self.levels)

    def read_by(self, workers: int) -> Dataset:
        """The same dataset, decoded by this many processes of their own.

        Raises:
            UserError: a number that cannot be had here.
        """
        reading.check_workers(workers)
        same = self.subset(slice(None))
        same.workers = workers
        return same

    def blocks(self, size: int) -> Iterator[Tensor]:
        """All images as published, in order, `size` at a time."""
        return reading.read(self, _slices(len(self), size))

    def batches(self, layout: Layout = ON_CPU) -> Iterator[Tensor]:
        """All images as float32 in [0, 1] on the layout's device, in order.

        Pixels are integers until they are there.
        """
        pinned = torch.device(layout.device).type == "cuda"
        batches = _slices(len(self), layout.batch_size)
        for pixels in reading.read(self, batches, pinned=pinned):
            x = pixels.to(layout.device, non_blocking=pinned)
            yield x.float().div_(self.levels)

    def subset(self, indices: Sequence[int] | slice | Tensor) -> Dataset:
        """The same dataset restricted to these positions; copies no image."""
        if isinstance(indices, Tensor):
            indices = indices.tolist()
        part = Dataset.__new__(Dataset)
        part.__dict__.update(
            {k: v for k, v in self.__dict__.items() if k not in ("labels", "_hash")},
            positions=self.positions[indices],
        )
        return part

    def without_broken(self, most: int) -> Dataset:
        """Without the images that cannot be read, which its notes count and name.

        Reads every image.

        Raises:
            UserError: more than `most` cannot be read; names the first.
        """
        found = reading.broken(self)
        if not found:
            return self
        first = next(iter(found.values()))
        if len(found) > most:
            raise UserError(
                f"{len(found)} of the {len(self)} images of {self.name}/{self.split} "
                f"cannot be read, more than --skip-broken {most} allows: {first}"
            )
        kept = [row for row in range(len(self)) if row not in found]
        if not kept:
            raise UserError(
                f"none of the {len(self)} images of {self.name}/{self.split} can be "
                f"read: {first}"
            )
        part = self.subset(kept)
        part.notes += (
            f"{len(found)} of the {len(self)} images of {self.split} could not be read "
            f"and were left out, at {', '.join(map(str, list(found)[:5]))}"
            + ", ..." * (len(found) > 5)
            + ".",
        )
        return part

    def whole(self) -> Dataset:
        """The published split that this is a part of."""
        part = self.subset(slice(0))
        part.positions = np.arange(len(self._labels))
        return part

    def take(self, limit: int | None, *, stratified: bool = False) -> Dataset:
        """The first `limit` images; evenly spaced ones where the split is sorted, by
        class or, without labels, by path.

        The field evaluates the first n images; on a folder sorted by class those
        would all be of one class. Stratified, the first ones of each class, as many of
        one as of another as far as they go.
        """
        if limit is None or limit >= len(self):
            return self
        if limit < 1:
            raise UserError(f"the number of examples must be positive, not {limit}")
        if stratified:
            return self.subset(sorted(in_turn(self.labels.tolist())[:limit].tolist()))
        ordered = not self.labelled or (
            len(self.classes) > 1 and bool((self.labels.diff() >= 0).all())
        )
        if ordered:
            return self.subset(spaced(len(self), limit).tolist())
        return self.subset(slice(limit))

    def fingerprint(self) -> str:
        """Hex SHA-256 over shape, labels (if there are any) and all pixels of this
        (sub)set, in order."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        digest = hashlib.sha256(f"{self.shape}|{self.levels}|{len(self)}".encode())
        if self.labelled:
            digest.update(self.labels.numpy().tobytes())
        size = max(1, HASHED_BYTES // prod(self.shape))
        for block in self.blocks(size):
            digest.update(block.contiguous().numpy().tobytes())
        return digest.hexdigest()


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def from_array(
    images: Pixels,
    labels: npt.NDArray[Any],
    *,
    name: str,
    split: str,
    classes: Sequence[str],
    levels: int = 255,
) -> Dataset:
    """A dataset over an array (N, C, H, W), memory-mapped or not.

    Raises:
        UserError: images and labels differ in number, or labels are refused by
            `whole_labels`.
    """
    if len(images) != len(labels):
        raise UserError(
            f"dataset '{name}' has {len(images)} images but {len(labels)} labels; "
            "a file is damaged"
        )
    _, c, h, w = images.shape
    return Dataset(
        name=name,
        split=split,
        fetch=lambda at: np.ascontiguousarray(images[at]),
        labels=labels,
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
        y: Labels (N,), whole numbers in [0, len(classes)) of any dtype.
        name: For the record.
        classes: Names of the classes.
        split: "train" or "test".

    Raises:
        UserError: wrong rank, NaN, pixels outside [0, 1] (with the range found),
            labels that `whole_labels` refuses, or another number of them.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise UserError(
            f"images must be floats of shape (N, C, H, W), not {x.dtype} of shape "
            f"{tuple(x.shape)}"
        )
    if not len(x):
        raise UserError(f"dataset '{name}' has no images in split '{split}'")
    check_pixels(x)
    if y.ndim == 1 and len(x) != len(y):
        raise UserError(
            f"{len(x)} images came with {len(y)} labels; give each image one"
        )
    y = y.detach().cpu()
    return from_array(
        x.detach().cpu().float().numpy(),
        (y.double() if y.is_floating_point() else y).numpy(),
        name=name,
        split=split,
        classes=classes,
        levels=1,
    )
