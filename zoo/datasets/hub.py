"""Splits of Hugging Face `datasets`: hf-datasets:NAME[:SPLIT], by that library itself.

NAME is a repository of the hub, or a folder that the library reads (parquet files, an
image folder, shards of webdataset). SPLIT stands for the test images; it is "test" by
default, and probes are fitted on "train". Images are the one `Image` column; labels the
one `ClassLabel` column, or, where there is none, the one column of whole numbers, such
as `cls` of webdataset: classes are then called by their numbers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.datasets.base import Dataset
from zoo.datasets.image_file import GREY
from zoo.datasets.names import HUB, Reading, recorded_name, shaped_name
from zoo.datasets.photo_sets import from_images
from zoo.datasets.photograph import prepared
from zoo.datasets.reshaped import check_channels
from zoo.errors import MissingDatasetError, UserError
from zoo.paths import offline


def read(name: str, split: str, reading: Reading | None = None) -> Dataset:
    """A split, its images decoded as needed.

    Args:
        name: "hf-datasets:NAME" or "hf-datasets:NAME:SPLIT".
        split: "train" or "test".
        reading: Shape of the images, and how they are brought to it.

    Raises:
        MissingDatasetError: the library cannot get it; with its reason.
        UserError: the library is not installed; other columns than described.
    """
    where, _, chosen = name.removeprefix(HUB).partition(":")
    wanted = chosen if chosen and split == "test" else split
    data = _loaded(name, where, wanted)
    column, label = _columns(name, data)
    labels, classes = _labels(name, where, data, label)
    channels = 1 if _all_grey(data, column) else 3
    full = recorded_name(name if reading is None else shaped_name(name, reading))
    shape = None if reading is None else reading.shape
    if shape is not None:
        check_channels(full, channels, shape)

    def image(at: int) -> npt.NDArray[np.uint8]:
        grey = channels == 1
        found = np.asarray(data[at][column].convert("L" if grey else "RGB"))
        pixels = found[None] if grey else found.transpose(2, 0, 1)
        return pixels if reading is None else prepared(pixels, reading)

    return from_images(
        image,
        labels,
        name=full,
        split=split,
        classes=classes,
        shape=shape,
    )


def _columns(name: str, data: Any) -> tuple[str, str]:
    """Of the images and of the labels."""
    kinds = {key: type(kind).__name__ for key, kind in data.features.items()}
    images = [key for key, kind in kinds.items() if kind == "Image"]
    labels = [key for key, kind in kinds.items() if kind == "ClassLabel"]
    if not labels:
        numbers = [key for key, kind in data.features.items() if _whole(kind)]
        labels = numbers if len(numbers) == 1 else []
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"'{name}' must have one Image and one ClassLabel column, not "
            f"{len(images)} and {len(labels)} (columns: {', '.join(kinds)}; one column "
            "of whole numbers does for labels); load it in Python, cast its columns, "
            "and pass it to evaluate"
        )
    return images[0], labels[0]


def _whole(kind: Any) -> bool:
    return str(getattr(kind, "dtype", "")).startswith(("int", "uint"))


def _labels(
    name: str, where: str, data: Any, column: str
) -> tuple[list[int], list[str]]:
    """Labels, and names of the classes: numbers up to the largest label of all splits,
    where the library knows no names."""
    names = getattr(data.features[column], "names", None)
    if names is not None:
        return [int(label) for label in data[column]], names
    most = -1
    for part in _loaded(name, where, None).values():
        found = [-1 if label is None else label for label in part[column]]
        if min(found, default=0) < 0:
            raise UserError(
                f"'{name}' has images without a label of 0 or more (column {column})"
            )
        most = max(most, *found)
    return list(data[column]), [str(number) for number in range(most + 1)]


def _loaded(name: str, where: str, split: str | None) -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"'{name}' needs the library datasets: pip install datasets"
        ) from None
    try:
        with _network_as_wanted():
            return datasets.load_dataset(where, split=split)
    except Exception as error:  # of the network, of the hub, of files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MissingDatasetError(
            f"'{name}' could not be loaded (split '{split}'): {reason}"
        ) from None


@contextmanager
def _network_as_wanted() -> Iterator[None]:
    """Where robrep is offline the library is: it reads its variable at import alone."""
    import datasets
    from huggingface_hub import constants

    places: tuple[Any, ...] = (constants, datasets.config)
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = offline() or place.HF_HUB_OFFLINE
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _all_grey(data: Any, column: str) -> bool:
    """By the headers alone; stops at the first image in colour."""
    from datasets import Image as Undecoded
    from PIL import Image

    for one in data.select_columns([column]).cast_column(
        column, Undecoded(decode=False)
    ):
        content = one[column]
        source = io.BytesIO(content["bytes"]) if content["bytes"] else content["path"]
        with Image.open(source) as image:
            if image.mode not in GREY:
                return False
    return True
