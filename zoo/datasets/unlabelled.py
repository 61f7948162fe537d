"""Photographs without labels: images:PATH, every image below PATH, for training.

Folders say nothing: images may lie in PATH or at any depth, in the order of their
paths. What counts as an image, what does not, links, channels and sizes are as in
`zoo.datasets.folder`.
"""

from __future__ import annotations

from pathlib import Path

from zoo.datasets.base import Dataset
from zoo.datasets.files import Files, from_files, some
from zoo.datasets.folder import Listing, files_below, is_image, notes_on
from zoo.datasets.image_file import SUFFIXES, read_header
from zoo.datasets.names import FOLDER, IMAGES, LIST, Reading, recorded_name
from zoo.errors import UserError


def read(
    root: Path, split: str, reading: Reading | None = None, *, called: str | None = None
) -> Dataset:
    """Lists the images and reads their headers.

    Args:
        root: Holds images, at any depth.
        split: "train"; there is no other.
        reading: As `zoo.datasets.folder.read`.
        called: Name for records, by default the last part of `root`.

    Raises:
        UserError: another split, no such folder, no images, sizes that differ, a file
            that is no image.
    """
    name = f"{IMAGES}{root}"
    if split != "train":
        raise UserError(
            f"'{recorded_name(name, called)}' is images without labels, which can only "
            "be trained on; to evaluate, name images in class folders "
            f"({FOLDER}PATH), a list with labels ({LIST}FILE.csv) or another dataset"
        )
    if not root.is_dir():
        raise UserError(f"no folder {root}; {IMAGES}PATH names a folder of images")
    there = list(files_below(root))
    paths = [path for path in there if is_image(path)]
    others = [path for path in there if not is_image(path)]
    if not paths:
        raise UserError(
            f"{root} holds no image that can be read"
            + (f", but {some(others)}" if others else "")
            + f"; images end in {', '.join(sorted(SUFFIXES))}"
        )
    files = Files(paths, [0] * len(paths), [read_header(path) for path in paths], ())
    channels = 1 if all(header.grey for header in files.headers) else 3
    shape = reading.shape if reading else None
    data = from_files(
        files,
        name=name,
        split=split,
        channels=channels,
        reading=reading,
        notes=notes_on(
            root, Listing(other=others), files, shape[0] if shape else channels
        ),
    )
    data.name = recorded_name(data.name, called)
    return data
