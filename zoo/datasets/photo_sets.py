"""Sets of photographs that transfer papers use, by torchvision's own readers.

Splits are the published ones, train and validation together for probes where the
field does so; where none is published, images are drawn from each class by a fixed
seed. Images are brought to the usual shape of the set, or to that of NAME@CxHxW
(`zoo.datasets.photograph`). Nothing is downloaded: a message says where the files are
looked for, and how torchvision gets them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.datasets.base import Dataset
from zoo.datasets.names import Reading, shaped_name
from zoo.datasets.photograph import prepared
from zoo.errors import MissingDatasetError, UserError

SEED = 0
"""Of the images drawn where no split is published."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """How torchvision reads a set."""

    kind: str
    """Class of `torchvision.datasets`."""
    place: str
    """Folder below the data folder."""
    parts: dict[str, tuple[dict[str, Any], ...]]
    """Arguments of the reader for each split; several are joined."""
    drawn: int | float | None = None
    """Training images of each class, as a number or a share; the rest is for test."""
    lists: dict[str, str] | None = None
    """Files that name the images of each split."""
    usual: tuple[int, int, int] | None = (3, 224, 224)
    """None: all images have one size, and keep it."""
    needs: str = ""
    """What else must be installed."""


def _by(name: str, train: Sequence[Any], test: Any) -> dict[str, Any]:
    return {
        "train": tuple({name: value} for value in train),
        "test": ({name: test},),
    }


_WHOLE: dict[str, Any] = {"train": ({},), "test": ({},)}
SOURCES = {
    "caltech-101": Source(
        kind="Caltech101", place="caltech101", parts=_WHOLE, drawn=30
    ),
    "oxford-pets": Source(
        kind="OxfordIIITPet",
        place="oxford-iiit-pet",
        parts=_by("split", ["trainval"], "test"),
    ),
    "flowers-102": Source(
        kind="Flowers102",
        place="flowers-102",
        parts=_by("split", ["train", "val"], "test"),
    ),
    "dtd": Source(
        kind="DTD", place="dtd", parts=_by("split", ["train", "val"], "test")
    ),
    "food-101": Source(
        kind="Food101", place="food-101", parts=_by("split", ["train"], "test")
    ),
    "fgvc-aircraft": Source(
        kind="FGVCAircraft",
        place="fgvc-aircraft-2013b",
        parts=_by("split", ["trainval"], "test"),
    ),
    "stanford-cars": Source(
        kind="StanfordCars",
        place="stanford_cars",
        parts=_by("split", ["train"], "test"),
    ),
    "eurosat": Source(
        kind="EuroSAT", place="eurosat", parts=_WHOLE, drawn=0.8, usual=None
    ),
    "sun397": Source(
        kind="SUN397",
        place="SUN397",
        parts=_WHOLE,
        lists={"train": "Training_01.txt", "test": "Testing_01.txt"},
    ),
    "country211": Source(
        kind="Country211",
        place="country211",
        parts=_by("split", ["train", "valid"], "test"),
    ),
    "pcam": Source(
        kind="PCAM",
        place="pcam",
        parts=_by("split", ["train", "val"], "test"),
        usual=None,
        needs="h5py",
    ),
    "gtsrb": Source(kind="GTSRB", place="gtsrb", parts=_by("split", ["train"], "test")),
    "imagenet": Source(
        kind="ImageNet", place="imagenet", parts=_by("split", ["train"], "val")
    ),
}


def read(
    name: str, split: str, data_dir: Path, reading: Reading | None = None
) -> Dataset:
    """A split of a set in `SOURCES`.

    Args:
        name: Of the set.
        split: "train" or "test".
        data_dir: Holds torchvision's folder of the set.
        reading: Shape of the images; by default the usual one.

    Raises:
        MissingDatasetError: says where it looked and how to get the files.
        UserError: files that torchvision cannot read.
    """
    source = SOURCES[name]
    parts = [_opened(name, source, data_dir, one) for one in source.parts[split]]
    items = [(part, at, label) for part in parts for at, label in _labels(part)]
    if source.drawn is not None:
        chosen = _drawn([label for _, _, label in items], source.drawn, split)
        items = [items[at] for at in chosen]
    if source.lists is not None:
        named = _named(name, parts[0], data_dir / source.place, source.lists[split])
        labels = {at: label for _, at, label in items}
        items = [(parts[0], at, labels[at]) for at in named]
    how = reading
    if how is None or how.shape is None:
        how = None if source.usual is None else Reading(shape=source.usual)

    def image(at: int) -> npt.NDArray[np.uint8]:
        part, position, _ = items[at]
        pixels = np.asarray(part[position][0].convert("RGB")).transpose(2, 0, 1)
        return pixels if how is None else prepared(pixels, how)

    return from_images(
        image,
        [label for _, _, label in items],
        name=name if reading is None else shaped_name(name, reading),
        split=split,
        classes=_classes(name, parts[0]),
        shape=None if how is None else how.shape,
    )


def from_images(
    image: Callable[[int], npt.NDArray[np.uint8]],
    labels: Sequence[int],
    *,
    name: str,
    split: str,
    classes: Sequence[str],
    shape: tuple[int, int, int] | None,
) -> Dataset:
    """A dataset of images that a function gives by position, read as needed.

    Args:
        image: Gives (C, H, W), uint8.
        labels: Of all images.
        name: In the registry.
        split: "train" or "test".
        classes: Their names.
        shape: Of all images; by default that of the first.

    Raises:
        UserError: no images, or an image of another shape than the first.
    """
    if not labels:
        raise UserError(f"dataset '{name}' has no images in split '{split}'")
    goal = image(0).shape if shape is None else shape

    def fetch(at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        images = np.empty((at.size, *goal), dtype=np.uint8)
        for row, i in enumerate(at.flat):
            pixels = image(int(i))
            if pixels.shape != goal:
                raise UserError(
                    f"image {i} of {name}/{split} is of shape {pixels.shape}, but the "
                    f"first is {goal}; bring all to one, as {name}@3x224x224"
                )
            images[row] = pixels
        return images

    channels, height, width = goal
    return Dataset(
        name=name,
        split=split,
        fetch=fetch,
        labels=np.asarray(labels, dtype=np.int64),
        classes=classes,
        shape=(channels, height, width),
    )


def _opened(name: str, source: Source, data_dir: Path, chosen: dict[str, Any]) -> Any:
    """torchvision's dataset, which must lie there."""
    from torchvision import datasets

    # The reader of ImageNet takes the folder itself, the others the one above.
    root = data_dir / source.place
    how = (
        f"put it there (torchvision's layout; where it can, python -c \"from "
        f"torchvision.datasets import {source.kind} as D; D('{data_dir}', "
        'download=True)" gets it), or pass --data-dir'
    )
    if not root.is_dir():
        raise MissingDatasetError(f"dataset '{name}' was not found in {root}; {how}")
    try:
        kind = getattr(datasets, source.kind)
        return kind(str(root if source.kind == "ImageNet" else data_dir), **chosen)
    except Exception as error:  # files of others fail in all ways there are
        if source.needs and source.needs in str(error):
            raise UserError(
                f"dataset '{name}' needs {source.needs}: pip install {source.needs}"
            ) from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MissingDatasetError(
            f"dataset '{name}' in {root} cannot be read as torchvision has it "
            f"({type(error).__name__}: {reason}); {how}"
        ) from None


def _labels(part: Any) -> Iterator[tuple[int, int]]:
    """Position and label of each image, without decoding any, in a fixed order."""
    for name in ("_labels", "targets", "y"):
        if hasattr(part, name):
            return ((i, int(label)) for i, label in enumerate(getattr(part, name)))
    if hasattr(part, "_samples"):
        return ((i, int(label)) for i, (_, label) in enumerate(part._samples))
    return ((i, int(label)) for i, label in enumerate(_pcam_labels(part)))


def _pcam_labels(part: Any) -> npt.NDArray[np.int64]:
    """torchvision keeps no list of them: it decodes an image for each."""
    file = part._base_folder / part._FILES[part._split]["targets"][0]
    with part.h5py.File(file) as content:
        return np.asarray(content["y"]).reshape(-1).astype(np.int64)


def _named(name: str, part: Any, root: Path, list_file: str) -> list[int]:
    """Positions of the images that a published list names, in its order.

    SUN397's lie in Partitions.zip beside its images, which torchvision does not get.
    """
    places = (root / list_file, root / "Partitions" / list_file)
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise MissingDatasetError(
            f"dataset '{name}' is split by its published partition 1, but {root} has "
            f"no {list_file}; unpack Partitions.zip there, from "
            "https://vision.princeton.edu/projects/2010/SUN/"
        )
    at = {
        f"/{p.relative_to(root).as_posix()}": i for i, p in enumerate(part._image_files)
    }
    lines = [line.strip() for line in found.read_text().splitlines() if line.strip()]
    if lacking := [line for line in lines if line not in at]:
        raise MissingDatasetError(
            f"{found} names {len(lacking)} of {len(lines)} images that are not in "
            f"{root} ({lacking[0]}); get the set again"
        )
    return [at[line] for line in lines]


def _drawn(labels: Sequence[int], count: int | float, split: str) -> list[int]:
    """Positions of the training or test images, drawn from each class."""
    rng, found = np.random.default_rng(SEED), []
    column = np.asarray(labels)
    for label in np.unique(column):
        order = rng.permutation(np.flatnonzero(column == label))
        cut = count if isinstance(count, int) else round(count * len(order))
        cut = min(cut, max(len(order) - 1, 0))  # one is left to test
        found += (order[:cut] if split == "train" else order[cut:]).tolist()
    return sorted(found)


def _classes(name: str, part: Any) -> list[str]:
    if name == "gtsrb":
        return [str(number) for number in range(43)]
    if name == "pcam":
        return ["normal", "tumour"]
    names = getattr(part, "classes", None) or part.categories
    return [one[0] if isinstance(one, tuple) else str(one) for one in names]
