"""A dataset over image files, which are read from disk as needed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median_low

import numpy as np
import numpy.typing as npt

from zoo.datasets.base import Dataset
from zoo.datasets.image_file import Header, read_pixels
from zoo.datasets.names import Reading, shaped_name
from zoo.datasets.photograph import prepared
from zoo.datasets.reshaped import check_channels
from zoo.errors import UserError
from zoo.files import sha256_file

SHOWN = 5
"""Names, or sizes, that a message lists at most."""
SIDES = (32, 64, 96, 128, 224)
"""Sides of the images that networks commonly take."""


@dataclass(frozen=True)
class Files:
    """The images of one split."""

    paths: Sequence[Path]
    labels: Sequence[int]
    headers: Sequence[Header]
    classes: Sequence[str]
    """None of images without labels, whose `labels` are zeros."""

    def chosen(self, positions: Iterable[int]) -> Files:
        """Some of them."""
        at = list(positions)
        return Files(
            [self.paths[i] for i in at],
            [self.labels[i] for i in at],
            [self.headers[i] for i in at],
            self.classes,
        )


def from_files(
    files: Files,
    *,
    name: str,
    split: str,
    channels: int,
    reading: Reading | None,
    notes: Sequence[str] = (),
) -> Dataset:
    """The dataset of these files.

    Args:
        files: At least one.
        name: Without what `reading` says.
        split: "train", "val" or "test".
        channels: Of the images as they lie there: 1 or 3.
        reading: What they are brought to.
        notes: See `Dataset`.

    Raises:
        UserError: sizes that differ without a shape to bring them to.
    """
    first = files.headers[0]
    goal = (channels, first.height, first.width)
    shape = None if reading is None else reading.shape
    if shape is None:
        _check_sizes(files, channels, name)
    else:
        check_channels(f"{name}@{reading}", channels, shape)
        goal = shape

    paths = [str(path) for path in files.paths]  # a Path takes five times the memory

    def fetch(at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        images = np.empty((at.size, *goal), dtype=np.uint8)
        for row, i in enumerate(at.ravel().tolist()):
            path = Path(paths[i])
            pixels = read_pixels(path, goal[0])
            if reading is not None and shape is not None:
                images[row] = prepared(pixels, reading)
            else:
                if pixels.shape[1:] != goal[1:]:
                    raise UserError(f"{path} has another size now; start anew")
                images[row] = pixels
        return images

    return Dataset(
        name=name if reading is None else shaped_name(name, reading),
        split=split,
        fetch=fetch,
        labels=np.array(files.labels, dtype=np.int64),
        classes=files.classes,
        shape=goal,
        notes=notes,
        hash_files=cache(lambda: _hash_files(paths)),
        list_files=cache(lambda: _hash_listing(paths)),
    )


def _hash_files(paths: Iterable[str]) -> str:
    """Hex SHA-256 over the SHA-256 of each file in order, whatever it is called.

    Pixels are not decoded: it takes as long as reading the files.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(sha256_file(Path(path))))
    return digest.hexdigest()


def _hash_listing(paths: Sequence[str]) -> str:
    """Hex SHA-256 over path and size of each file in order.

    Paths count from the folder that holds all, which may have moved.
    """
    digest = hashlib.sha256()
    absolute = [os.path.abspath(path) for path in paths]
    skipped = len(os.path.commonpath([os.path.dirname(path) for path in absolute]))
    for path in absolute:
        digest.update(os.fsencode(f"{path[skipped:]}\0{os.stat(path).st_size}\0"))
    return digest.hexdigest()


def share_of(files: Files, split: str, reading: Reading, name: str) -> Files:
    """The test images, or the others, of files without splits: the same share of each
    class, drawn by the seed.

    Raises:
        UserError: a split that there is not, or a class of fewer than two images.
    """
    from sklearn.model_selection import train_test_split

    if split not in ("train", "test"):
        raise UserError(f"'{name}' is parted into train and test; there is no {split}")
    assert reading.share is not None
    try:
        train, test = train_test_split(
            np.arange(len(files.paths)),
            test_size=reading.share / 100,
            random_state=reading.seed or 0,
            stratify=files.labels,
        )
    except ValueError as error:
        raise UserError(
            f"{reading.share}% of the {len(files.paths)} images of '{name}' cannot be "
            f"taken from each class alike: {error}"
        ) from None
    chosen = test if split == "test" else train
    return files.chosen(sorted(chosen.tolist()))


def _check_sizes(files: Files, channels: int, name: str) -> None:
    """Raises `UserError` with the sizes, and one to bring the images to."""
    found = Counter((header.width, header.height) for header in files.headers)
    if len(found) == 1:
        return
    sizes = [f"{size[0]}x{size[1]} ({count})" for size, count in found.most_common()]
    first = files.headers[0]
    other = next(
        path
        for path, header in zip(files.paths, files.headers, strict=True)
        if (header.width, header.height) != (first.width, first.height)
    )
    shorter = median_low(min(header.width, header.height) for header in files.headers)
    side = max((side for side in SIDES if side <= shorter), default=shorter)
    raise UserError(
        f"the images of '{name}' have {len(sizes)} sizes, width x height: "
        f"{some(sizes)}; {_within(files.paths, other)} is the first that differs "
        "from the first image. Bring all to the size that your network takes by the "
        "dataset's name, as "
        f"{shaped_name(name, (channels, side, side))}"
    )


def _within(paths: Iterable[Path], path: Path) -> str:
    """Below the folder that holds all: CLASS/IMAGE, for names repeat among classes."""
    common = os.path.commonpath([os.path.abspath(each.parent) for each in paths])
    return Path(os.path.relpath(path, common)).as_posix()


def some(names: Iterable[object]) -> str:
    """The first few, and how many more there are."""
    words = [str(name.name if isinstance(name, Path) else name) for name in names]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
