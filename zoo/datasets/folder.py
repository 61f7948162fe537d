"""People's own images: PATH/{train,test}/CLASS/IMAGE, read from disk as needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.datasets.base import Dataset
from zoo.errors import MissingDatasetError, UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
LAYOUT = "expected PATH/{train,test}/CLASS/IMAGE.{jpg,png,...}"


def read_named(name: str, split: str, data_dir: Path) -> Dataset:
    """A registered dataset that is handed round as a folder of images, DATA_DIR/NAME.

    Raises:
        MissingDatasetError: says where it looked.
        UserError: as `read`.
    """
    root = data_dir / name
    if not root.is_dir():
        raise MissingDatasetError(
            f"dataset '{name}' was not found in {data_dir}; pass --data-dir with a "
            f"folder that holds {name}/{{train,test}}/CLASS/IMAGE"
        )
    return read(root, split, name)


def read(root: Path, split: str, name: str | None = None) -> Dataset:
    """Lists the images of a split; all must have the size of the first one.

    Args:
        root: Holds a folder per split.
        split: "train" or "test".
        name: Of the dataset; by default the reference that leads here.

    Raises:
        UserError: no such folder, no class folders, no images, sizes that differ, a
            file that is no image.
    """
    folder = root / split
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; {LAYOUT}")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if len(classes) < 2:
        raise UserError(f"{folder} has {len(classes)} class folders; {LAYOUT}")
    paths: list[Path] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        found = sorted(
            p for p in (folder / class_name).iterdir() if p.suffix.lower() in SUFFIXES
        )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise UserError(f"{folder} holds no images; {LAYOUT}")
    first = _decode(paths[0], None)
    shape = first.shape[0], first.shape[1], first.shape[2]

    def fetch(at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return np.stack([_decode(paths[i], shape) for i in np.atleast_1d(at)])

    return Dataset(
        name=name or f"imagefolder:{root}",
        split=split,
        fetch=fetch,
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
        shape=shape,
    )


def _decode(path: Path, shape: tuple[int, int, int] | None) -> npt.NDArray[np.uint8]:
    """One image as uint8 (C, H, W); grey stays one channel, all else becomes RGB."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            grey = image.mode in ("L", "1") if shape is None else shape[0] == 1
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"cannot read image {path}: {error}") from None
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if shape is not None and planes.shape != shape:
        raise UserError(
            f"{path} is {planes.shape[2]}x{planes.shape[1]}, but the first image is "
            f"{shape[2]}x{shape[1]}; bring all images to one size first"
        )
    return planes
