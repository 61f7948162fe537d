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
- **One folder without splits**, PATH/CLASS/IMAGE, is parted by PATH@test20: a fifth of
  each class is for test.

What is worth knowing about a folder stands in the dataset's `notes`. Kinds of image
files: `zoo.datasets.image_file`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zoo.datasets.base import Dataset
from zoo.datasets.files import Files, from_files, share_of, some
from zoo.datasets.image_file import SUFFIXES, Header, read_header
from zoo.datasets.names import FOLDER, Reading, recorded_name
from zoo.errors import MissingDatasetError, UserError, nearest

SPLITS = ("train", "val", "test")
LAYOUT = (
    "expected PATH/{train,test}/CLASS/IMAGE.{jpg,png,...}; of PATH/CLASS/IMAGE a share "
    "can be for test: imagefolder:PATH@test20, or --test-share 20% of robrep-eval; "
    "without labels, for robrep-pretrain alone: images:PATH"
)


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
    root: Path, split: str, reading: Reading | None = None, *, called: str | None = None
) -> Dataset:
    """Lists the images of a split and reads their headers; see the top of this file.

    Args:
        root: Holds a folder per split, or, with a share in `reading`, per class.
        split: "train", "val" or "test".
        reading: The shape to bring all images to, and how; see
            `zoo.datasets.photograph`.
        called: Name for records, by default the last part of `root`.

    Raises:
        UserError: no such folder, fewer than two classes, no images, a class that
            train does not have, sizes that differ, a file that is no image.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; {nearest(split, SPLITS)}")
    name = f"{FOLDER}{root}"
    if reading is not None and reading.share is not None:
        data = _read_share(root, split, name, reading)
        data.name = recorded_name(data.name, called)
        return data
    folder = root / split
    if split == "test" and not folder.is_dir() and (root / "val").is_dir():
        folder = root / "val"
    data = _read(folder, name, reading)
    data.name = recorded_name(data.name, called)
    if data.split != split:
        data.notes += (f"{data.name} has no test; val was read in its place.",)
    return data


def _read(folder: Path, name: str, reading: Reading | None) -> Dataset:
    found = _list(folder)
    files = _as_files(found, _classes(folder, found))
    channels = 3 if _any_colour(folder, files.headers) else 1
    shape = reading.shape if reading else None
    return from_files(
        files,
        name=name,
        split=folder.name,
        channels=channels,
        reading=reading,
        notes=notes_on(folder, found, files, shape[0] if shape else channels),
    )


def _read_share(root: Path, split: str, name: str, reading: Reading) -> Dataset:
    """A folder per class, of which a share is for test."""
    there = [one for one in SPLITS if (root / one).is_dir()]
    if there:
        raise UserError(
            f"{root} has splits already ({', '.join(there)}); leave --test-share out"
        )
    found = _list(root)
    if len(found.images) < 2:
        raise UserError(
            f"{root} has {len(found.images)} class folders; expected PATH/CLASS/IMAGE"
        )
    files = _as_files(found, list(found.images))
    channels = 1 if all(header.grey for header in files.headers) else 3
    shape = reading.shape
    return from_files(
        share_of(files, split, reading, name),
        name=name,
        split=split,
        channels=channels,
        reading=reading,
        notes=notes_on(root, found, files, shape[0] if shape else channels),
    )


def _as_files(found: Listing, classes: list[str]) -> Files:
    number = {class_name: at for at, class_name in enumerate(classes)}
    paths = [path for own in found.images.values() for path in own]
    labels = [
        number[class_name] for class_name, own in found.images.items() for _ in own
    ]
    return Files(paths, labels, [read_header(path) for path in paths], classes)


@dataclass
class Listing:
    """The visible files of a split."""

    images: dict[str, list[Path]] = field(default_factory=dict)
    """Of each class that has any, sorted."""
    empty: list[str] = field(default_factory=list)
    """Class folders without a file."""
    other: list[Path] = field(default_factory=list)
    """Empty files, and files that are no images of a class."""


def _list(folder: Path) -> Listing:
    """Raises `UserError` without the folder, or for a class of unknown files."""
    if not folder.is_dir():
        there = [entry.name for entry in _visible(folder.parent) if entry.is_dir()]
        raise UserError(f"no folder {folder}; {_there(folder.parent, there)}; {LAYOUT}")
    found = Listing()
    for entry in _visible(folder):
        if not entry.is_dir():
            found.other.append(entry)
            continue
        files = list(files_below(entry))
        images = [path for path in files if is_image(path)]
        others = [path for path in files if not is_image(path)]
        found.other += others
        if images:
            found.images[entry.name] = images
        elif any(path.suffix.lower() not in SUFFIXES for path in others):
            raise UserError(
                f"{entry} holds no image that can be read, but {some(others)}; "
                f"save them as {some(sorted(SUFFIXES))}, or remove the folder"
            )
        else:
            found.empty.append(entry.name)
    return found


def _there(root: Path, names: list[str]) -> str:
    if not root.is_dir():
        return f"nor {root}"
    return f"{root} holds {some(names) if names else 'no folders'}"


def _classes(folder: Path, found: Listing) -> list[str]:
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
            if entry.is_dir() and any(map(is_image, files_below(entry)))
        ]
    if len(classes) < 2:
        one = f" ('{classes[0]}')" if classes else ""
        where = train if folder != train and train.is_dir() else folder
        raise UserError(f"{where} has {len(classes)} class folders{one}; {LAYOUT}")
    unknown = [name for name in found.images if name not in set(classes)]
    if unknown:
        raise UserError(
            f"{folder} has images of class {some(map(repr, unknown))}, of which "
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
        for path in files_below(other)
        if is_image(path) and path.parent != other
    )


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(e for e in folder.iterdir() if not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read folder {folder}: {error.strerror}") from None


def files_below(folder: Path, around: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Visible files at any depth; links are followed, but not to a folder around them.

    Args:
        folder: Where to look.
        around: The folders on the way to it, resolved: two that link to each other
            would else go on for ever.
    """
    here = folder.resolve()
    around |= {here}
    for entry in _visible(folder):
        if not entry.is_dir():
            yield entry
            continue
        back = entry.is_symlink() and _leads_back(entry.resolve(), around)
        if not back:
            yield from files_below(entry, around)


def _leads_back(target: Path, around: frozenset[Path]) -> bool:
    """True of a folder that holds one of those on the way, or is one."""
    return any(folder.is_relative_to(target) for folder in around)


def is_image(path: Path) -> bool:
    """By its name, unless it is empty; a dangling link is found out when read."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    return not path.exists() or path.stat().st_size > 0


def notes_on(
    folder: Path,
    found: Listing,
    files: Files,
    channels: int,
) -> list[str]:
    """What was left out or changed, and what is missing; without paths.

    Args:
        folder: Of the split, whose name the notes bear.
        found: What is in it.
        files: Those of its images that count.
        channels: In which they are read.
    """
    notes = []
    split = folder.name
    grey = sum(header.grey for header in files.headers)
    if grey and channels == 3:
        which = f"{grey} of the {len(files.headers)} images of {split}"
        notes.append(f"{which} are grey and were read as RGB.")
    if found.empty:
        notes.append(f"Empty folders of {split} are no classes: {some(found.empty)}.")
    if found.other:
        names = some(str(path.relative_to(folder)) for path in found.other)
        notes.append(f"Files of {split} that are empty or no images: {names}.")
    missing = [name for name in files.classes if name not in found.images]
    if missing:
        notes.append(f"{split} has no images of class {some(map(repr, missing))}.")
    return notes
