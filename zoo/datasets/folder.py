"""People's own images: PATH/{train,val,test}/CLASS/IMAGE, read from disk as needed.

- **Classes** are the folders in train that hold an image, sorted by name, for every
  split; a folder without train numbers its own. A class of another split that train
  does not have is refused; one that train alone has is fine.
- **Images** may lie deeper than their class folder. Hidden files and folders, empty
  files and empty class folders do not count; a class folder of other files is refused.
- **Splits** are those that are there. Where test is missing, val is read in its place,
  and the dataset says so by its `split`.
- **Channels**: three if any image of any split is in colour, else one.
- **Size**: all images of a split have that of the first; PATH@CxHxW resizes them.

What is worth knowing about a folder stands in the dataset's `notes`. Kinds of image
files: `zoo.datasets.image_file`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from zoo.datasets.base import Dataset
from zoo.datasets.image_file import SUFFIXES, Header, read_header, read_pixels
from zoo.datasets.names import FOLDER, Shape, recorded_name, shaped_name
from zoo.datasets.reshaped import check_channels, fit_shape
from zoo.errors import MissingDatasetError, UserError, nearest

SPLITS = ("train", "val", "test")
LAYOUT = "expected PATH/{train,test}/CLASS/IMAGE.{jpg,png,...}"
SHOWN = 5
"""Names that a message lists at most."""


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
    return _read(root / split, name, None)


def read(
    root: Path, split: str, shape: Shape | None = None, *, called: str | None = None
) -> Dataset:
    """Lists the images of a split and reads their headers; see the top of this file.

    Args:
        root: Holds a folder per split.
        split: "train", "val" or "test".
        shape: (C, H, W) to bring all images to; see `zoo.datasets.reshaped`.
        called: Name for records, by default the last part of `root`.

    Raises:
        UserError: no such folder, fewer than two classes, no images, a class that
            train does not have, sizes that differ, a file that is no image.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; {nearest(split, SPLITS)}")
    folder = root / split
    if split == "test" and not folder.is_dir() and (root / "val").is_dir():
        folder = root / "val"
    data = _read(folder, f"{FOLDER}{root}", shape)
    data.name = recorded_name(data.name, called)
    if data.split != split:
        data.notes += (f"{data.name} has no test; val was read in its place.",)
    return data


def _read(folder: Path, name: str, shape: Shape | None) -> Dataset:
    found = _list(folder)
    classes = _classes(folder, found)
    number = {class_name: at for at, class_name in enumerate(classes)}
    paths = [path for own in found.images.values() for path in own]
    labels = [
        number[class_name] for class_name, own in found.images.items() for _ in own
    ]
    headers = [read_header(path) for path in paths]
    channels = 3 if _any_colour(folder, headers) else 1
    if shape is None:
        goal = channels, headers[0].height, headers[0].width
        for path, header in zip(paths, headers, strict=True):
            _check_size(path, (header.height, header.width), goal, name)
    else:
        goal, name = shape, shaped_name(name, shape)
        check_channels(name, channels, shape)

    def fetch(at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        images = np.empty((at.size, *goal), dtype=np.uint8)
        for row, i in enumerate(at.flat):
            pixels = read_pixels(paths[i], goal[0])
            images[row] = _sized(pixels, paths[i], goal, name, shape is not None)
        return images

    return Dataset(
        name=name,
        split=folder.name,
        fetch=fetch,
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
        shape=goal,
        notes=_notes(folder, found, classes, headers, goal[0]),
    )


@dataclass
class _Listing:
    """The visible files of a split."""

    images: dict[str, list[Path]] = field(default_factory=dict)
    """Of each class that has any, sorted."""
    empty: list[str] = field(default_factory=list)
    """Class folders without a file."""
    other: list[Path] = field(default_factory=list)
    """Empty files, and files that are no images of a class."""


def _list(folder: Path) -> _Listing:
    """Raises `UserError` without the folder, or for a class of unknown files."""
    if not folder.is_dir():
        there = [entry.name for entry in _visible(folder.parent) if entry.is_dir()]
        raise UserError(f"no folder {folder}; {_there(folder.parent, there)}; {LAYOUT}")
    found = _Listing()
    for entry in _visible(folder):
        if not entry.is_dir():
            found.other.append(entry)
            continue
        files = list(_files(entry))
        images = [path for path in files if _is_image(path)]
        others = [path for path in files if not _is_image(path)]
        found.other += others
        if images:
            found.images[entry.name] = images
        elif any(path.suffix.lower() not in SUFFIXES for path in others):
            raise UserError(
                f"{entry} holds no image that can be read, but {_some(others)}; "
                f"save them as {_some(sorted(SUFFIXES))}, or remove the folder"
            )
        else:
            found.empty.append(entry.name)
    return found


def _there(root: Path, names: list[str]) -> str:
    if not root.is_dir():
        return f"nor {root}"
    return f"{root} holds {_some(names) if names else 'no folders'}"


def _classes(folder: Path, found: _Listing) -> list[str]:
    """Those of train, or the folder's own where there is no train.

    Raises:
        UserError: fewer than two, or images of a class that train does not have.
    """
    train = folder.parent / "train"
    classes = list(found.images)
    if folder != train and train.is_dir():
        classes = [
            entry.name
            for entry in _visible(train)
            if entry.is_dir() and any(map(_is_image, _files(entry)))
        ]
    if len(classes) < 2:
        one = f" ('{classes[0]}')" if classes else ""
        where = train if folder != train and train.is_dir() else folder
        raise UserError(f"{where} has {len(classes)} class folders{one}; {LAYOUT}")
    unknown = [name for name in found.images if name not in set(classes)]
    if unknown:
        raise UserError(
            f"{folder} has images of class {_some(map(repr, unknown))}, of which "
            f"{train} has none; rename the folder or give train images of that class "
            f"({nearest(unknown[0], classes)})"
        )
    if not found.images:
        raise UserError(f"{folder} holds no images; {LAYOUT}")
    return classes


def _any_colour(folder: Path, headers: Iterable[Header]) -> bool:
    """Whether any image of any split is in colour; stops at the first."""
    if not all(header.grey for header in headers):
        return True
    others = (folder.parent / name for name in SPLITS if name != folder.name)
    return any(
        not read_header(path).grey
        for other in others
        if other.is_dir()
        for path in _files(other)
        if _is_image(path) and path.parent != other
    )


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(e for e in folder.iterdir() if not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read folder {folder}: {error.strerror}") from None


def _files(folder: Path) -> Iterator[Path]:
    """Visible files at any depth; links are followed, but not to a folder above."""
    for entry in _visible(folder):
        if not entry.is_dir():
            yield entry
            continue
        around = entry.is_symlink() and folder.resolve().is_relative_to(entry.resolve())
        if not around:
            yield from _files(entry)


def _is_image(path: Path) -> bool:
    """By its name, unless it is empty; a dangling link is found out when read."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    return not path.exists() or path.stat().st_size > 0


def _sized(
    pixels: npt.NDArray[np.uint8], path: Path, goal: Shape, name: str, resize: bool
) -> npt.NDArray[np.uint8]:
    if resize:
        whole = torch.from_numpy(pixels[None].astype(np.float32) / 255)
        (pixels,) = fit_shape(whole, goal)
        return pixels
    _check_size(path, pixels.shape[1:], goal, name)
    return pixels


def _check_size(path: Path, size: tuple[int, ...], shape: Shape, name: str) -> None:
    if size != shape[1:]:
        raise UserError(
            f"{path} is {size[1]}x{size[0]}, but the first image is "
            f"{shape[2]}x{shape[1]}; bring all images to one size, or let a dataset "
            f"called {shaped_name(name, shape)} do it"
        )


def _notes(
    folder: Path,
    found: _Listing,
    classes: list[str],
    headers: list[Header],
    channels: int,
) -> list[str]:
    """What was left out or changed, and what is missing; without paths."""
    notes = []
    split = folder.name
    grey = sum(header.grey for header in headers)
    if grey and channels == 3:
        which = f"{grey} of the {len(headers)} images of {split}"
        notes.append(f"{which} are grey and were read as RGB.")
    if found.empty:
        notes.append(f"Empty folders of {split} are no classes: {_some(found.empty)}.")
    if found.other:
        names = _some(str(path.relative_to(folder)) for path in found.other)
        notes.append(f"Files of {split} that are empty or no images: {names}.")
    missing = [name for name in classes if name not in found.images]
    if missing:
        notes.append(f"{split} has no images of class {_some(map(repr, missing))}.")
    return notes


def _some(names: Iterable[object]) -> str:
    """The first few, and how many more there are."""
    words = [str(name.name if isinstance(name, Path) else name) for name in names]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
