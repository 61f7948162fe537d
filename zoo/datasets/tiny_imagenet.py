"""Tiny ImageNet as it is handed round: tiny-imagenet-200/, with a list for val."""

from __future__ import annotations

from pathlib import Path

from zoo import budgets
from zoo.datasets.base import Dataset
from zoo.datasets.files import Files, from_files
from zoo.datasets.image_file import read_header
from zoo.datasets.names import Reading
from zoo.errors import MissingDatasetError, UserError

PLACE = "tiny-imagenet-200"


def read(
    name: str, split: str, data_dir: Path, reading: Reading | None = None
) -> Dataset:
    """The training images, or the 10,000 of val as test: those of test have no labels.

    Raises:
        MissingDatasetError: says where it looked.
        UserError: a list or an image that cannot be read.
    """
    root = data_dir / PLACE
    if not (root / "wnids.txt").is_file():
        raise MissingDatasetError(
            f"dataset '{name}' was not found in {root}; unpack {PLACE}.zip there, or "
            "pass --data-dir with the folder that holds it"
        )
    classes = sorted(_lines(root / "wnids.txt"))
    number = {wnid: at for at, wnid in enumerate(classes)}
    if split == "train":
        found = [
            (path, wnid)
            for wnid in classes
            for path in sorted((root / "train" / wnid / "images").glob("*.JPEG"))
        ]
    else:
        rows = [line.split("\t") for line in _lines(root / "val/val_annotations.txt")]
        if any(len(row) < 2 or row[1] not in number for row in rows):
            raise UserError(f"{root}/val/val_annotations.txt names an unknown class")
        found = [(root / "val" / "images" / row[0], row[1]) for row in rows]
    if not found:
        raise UserError(f"dataset '{name}' has no images in {root}/{split}")
    files = Files(
        [path for path, _ in found],
        [number[wnid] for _, wnid in found],
        [read_header(path) for path, _ in found],
        classes,
    )
    return from_files(files, name=name, split=split, channels=3, reading=reading)


def _lines(path: Path) -> list[str]:
    return budgets.read_bytes(path, budgets.TEXT_BYTES).decode().splitlines()
