"""From the name of a dataset to its images: a row of the table, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.datasets.derived_names import parts_of
from zoo.datasets.names import (
    FOLDER,
    HUB,
    IMAGES,
    LIST,
    MARK,
    OWN,
    PLACES,
    Reading,
    check_own_name,
    no_shape,
    parts,
    recorded_name,
    shaped_name,
    split_name,
)
from zoo.datasets.registry import get, registry
from zoo.errors import MissingDatasetError, UserError, nearest
from zoo.paths import home, user_path

if TYPE_CHECKING:
    from zoo.datasets.base import Dataset

SPLITS = ("train", "test")


def check(name: str, called: str | None = None) -> None:
    """Raises `UserError` at once for a name that nothing is known by.

    Args:
        name: As typed.
        called: What an image folder is to be called in records.
    """
    base, _ = split_name(name)
    if called is not None:
        check_own_name(called)
        if not base.startswith(OWN):
            raise UserError(
                f"'{name}' has a name already; '{called}' would name images of your "
                f"own ({FOLDER}PATH)"
            )
    if base.startswith(OWN):
        _own_path(base)
    elif not base.startswith(HUB):
        get(base)


def _own_path(base: str) -> Path:
    """Of images of the user's own, by a name without what `split_name` parts from it.

    Raises:
        UserError: no path, or one that is there but for the shape behind it.
    """
    kind, _, text = base.partition(":")
    if not text:
        raise UserError(f"'{base}' names no place; write {kind}:PATH")
    path = user_path(text)
    before, _, shape = text.rpartition(MARK)
    if before and not path.exists() and user_path(before).exists():
        raise no_shape(shape, base)
    return path


def load(
    name: str, split: str, data_dir: Path | None, called: str | None = None
) -> Dataset:
    """See `zoo.datasets.load`."""
    from zoo.datasets.reshaped import reshape

    base, reading = split_name(name)
    if base.startswith(FOLDER):
        from zoo.datasets.folder import read as read_folder

        return read_folder(_own_path(base), split, reading, called=called)
    if base.startswith(LIST):
        from zoo.datasets.file_list import read as read_list

        return read_list(_own_path(base), split, reading, called=called)
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; {nearest(split, SPLITS)}")
    if base.startswith(IMAGES):
        from zoo.datasets.unlabelled import read as read_images

        return read_images(_own_path(base), split, reading, called=called)
    if base.startswith(HUB):
        from zoo.datasets.hub import read as read_hub

        return read_hub(base, split, reading)
    row = get(base)
    name = base if base in registry() else parts_of(base)[0]
    module, function = row.read.split(":")
    read: Callable[..., Dataset] = getattr(import_module(module), function)
    folder = data_dir or home() / "datasets"
    if row.photographs:
        data = read(name, split, folder, reading)
        return data if name == base else _derived(data, base, reading)
    data = read(name, split, folder)
    data = data if name == base else _derived(data, base, None)
    return data if reading is None else reshape(data, reading)


def _derived(data: Dataset, name: str, reading: Reading | None) -> Dataset:
    """A task made of a dataset, as it was read."""
    from zoo.datasets.derived import derive

    made = derive(data, name)
    if reading is not None:
        made.name = shaped_name(name, reading)
    return made


def load_recorded(name: str, split: str, data_dir: Path | None) -> Dataset:
    """The dataset that a record names; people's own, and those of a hub, are read from
    DATA_DIR/NAME.

    A record of other people names no path on this machine, whatever it says.

    Raises:
        MissingDatasetError: images of somebody's own, which are not there.
        UserError: as `zoo.datasets.load`.
    """
    base, reading = split_name(recorded_name(name))
    if not base.startswith(PLACES):
        return load(name, split, data_dir)
    kind, own, chosen = parts(base)
    folder = (data_dir or home() / "datasets").absolute()
    if not (folder / own).exists():
        raise MissingDatasetError(
            f"'{base}' is somebody's own and not in {folder}; a record opens no other "
            "folder and fetches nothing: pass --data-dir with a folder that holds "
            f"{own}"
        )
    here = f"{kind}{folder / own}{chosen}"
    called = None if kind == HUB else own
    return load(shaped_name(here, reading) if reading else here, split, None, called)
