"""Splits of Hugging Face `datasets`: hf-datasets:NAME[:SPLIT], by that library itself.

NAME is a repository of the hub, or a folder that the library reads (parquet files, an
image folder). SPLIT stands for the test images; it is "test" by default, and probes
are fitted on "train". Images and labels are the one `Image` column and the one
`ClassLabel` column.
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
    kinds = {key: type(kind).__name__ for key, kind in data.features.items()}
    images = [key for key, kind in kinds.items() if kind == "Image"]
    labels = [key for key, kind in kinds.items() if kind == "ClassLabel"]
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"'{name}' must have one Image and one ClassLabel column, not "
            f"{len(images)} and {len(labels)} (columns: {', '.join(kinds)}); load it "
            "in Python, cast its columns, and pass it to evaluate"
        )
    column = images[0]
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
        [int(label) for label in data[labels[0]]],
        name=full,
        split=split,
        classes=data.features[labels[0]].names,
        shape=shape,
    )


def _loaded(name: str, where: str, split: str) -> Any:
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
