"""A dataset over image files, which are read from disk as needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.datasets.base import Dataset
from zoo.datasets.image_file import Header, read_pixels
from zoo.datasets.names import Reading, shaped_name
from zoo.datasets.photograph import prepared
from zoo.datasets.reshaped import check_channels
from zoo.errors import UserError

SHOWN = 5
"""Names that a message lists at most."""


@dataclass(frozen=True)
class Files:
    """The images of one split."""

    paths: Sequence[Path]
    labels: Sequence[int]
    headers: Sequence[Header]
    classes: Sequence[str]

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
        for path, header in zip(files.paths, files.headers, strict=True):
            _check_size(path, (header.height, header.width), goal, name)
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
                _check_size(path, pixels.shape[1:], goal, name)
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
    )


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


def _check_size(
    path: Path, size: tuple[int, ...], goal: tuple[int, int, int], name: str
) -> None:
    if size != goal[1:]:
        raise UserError(
            f"{path} is {size[1]}x{size[0]}, but the first image is "
            f"{goal[2]}x{goal[1]}; bring all images to one size, or let a dataset "
            f"called {shaped_name(name, goal)} do it"
        )


def some(names: Iterable[object]) -> str:
    """The first few, and how many more there are."""
    words = [str(name.name if isinstance(name, Path) else name) for name in names]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
