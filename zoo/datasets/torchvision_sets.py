"""The field's usual datasets, in the files that torchvision downloads."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from zoo.datasets.base import Dataset, from_array
from zoo.datasets.idx import find_idx, read_idx
from zoo.errors import MissingDatasetError, UserError
from zoo.paths import offline

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
CLASSES = {
    "mnist": [str(digit) for digit in range(10)],
    "fashion-mnist": [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    "svhn": [str(digit) for digit in range(10)],
}
_NAMES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "stl10": "STL10",
}


def read(name: str, split: str, data_dir: Path) -> Dataset:
    """Reads `name` from `data_dir`, downloading it there first if the network allows.

    Raises:
        UserError: says where it looked and how to get the files.
    """
    if name in ("mnist", "fashion-mnist"):
        local = _read_idx_set(name, split, data_dir)
        if local is not None:
            return local
    source = _open(name, split, data_dir)
    pixels = np.asarray(source.data)
    if pixels.ndim == 3:  # (N, H, W)
        pixels = pixels[:, None]
    elif pixels.shape[-1] == 3:  # (N, H, W, C)
        pixels = pixels.transpose(0, 3, 1, 2)
    labels = getattr(source, "targets", getattr(source, "labels", None))
    classes = CLASSES.get(name) or list(source.classes)
    return from_array(
        pixels,
        np.asarray(labels, dtype=np.int64),
        name=name,
        split=split,
        classes=classes,
    )


def _read_idx_set(name: str, split: str, data_dir: Path) -> Dataset | None:
    """The four IDX files if they lie in a usual place, else None."""
    folders = [data_dir, data_dir / _NAMES[name] / "raw", data_dir / name]
    if name == "fashion-mnist":
        folders.append(DEBIAN_FASHION)
    stem = "train" if split == "train" else "t10k"
    images = find_idx(folders, f"{stem}-images-idx3-ubyte")
    if images is None:
        return None
    labels = find_idx([images.parent], f"{stem}-labels-idx1-ubyte")
    if labels is None:
        raise UserError(
            f"{images} has no {stem}-labels-idx1-ubyte beside it; get the file again"
        )
    pixels, values = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or values.ndim != 1:
        raise UserError(f"{images} or its labels do not hold images and labels")
    return from_array(
        pixels[:, None],
        values.astype(np.int64),
        name=name,
        split=split,
        classes=CLASSES[name],
    )


def _open(name: str, split: str, data_dir: Path) -> Any:
    """torchvision's dataset object: first without, then with a download."""
    from torchvision import datasets

    kind = getattr(datasets, _NAMES[name])
    chosen = (
        {"split": split} if name in ("svhn", "stl10") else {"train": split == "train"}
    )
    _check_sums(kind, name, split, data_dir)
    reason = "offline mode is on" if offline() else ""
    for download in (False,) if offline() else (False, True):
        try:
            with redirect_stdout(sys.stderr):  # it prints; stdout is for results
                return kind(str(data_dir), download=download, **chosen)
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            reason = reason if offline() else str(error).splitlines()[0]
    hint = (
        ", or install Debian's package dataset-fashion-mnist"
        if name == "fashion-mnist"
        else ""
    )
    raise MissingDatasetError(
        f"dataset '{name}' was not found in {data_dir} and could not be downloaded "
        f"({reason}); pass --data-dir with a folder that holds torchvision's "
        f"files{hint}"
    )


def _check_sums(kind: Any, name: str, split: str, data_dir: Path) -> None:
    """Raises `UserError` for files that are there with another MD5 than torchvision's.

    torchvision says "not found or corrupted" of them, and would download them anew.
    """
    from torchvision.datasets.utils import check_integrity

    if hasattr(kind, "split_list"):
        _, file, md5 = kind.split_list[split]
        listed = [(data_dir / file, md5)]
    else:
        folder = data_dir / getattr(kind, "base_folder", "")
        pairs = [*getattr(kind, "train_list", ()), *getattr(kind, "test_list", ())]
        listed = [(folder / file, md5) for file, md5 in pairs]
        if meta := getattr(kind, "meta", None):
            listed.append((folder / meta["filename"], meta["md5"]))
    wrong = [p for p, md5 in listed if p.is_file() and not check_integrity(str(p), md5)]
    if wrong:
        raise UserError(
            f"{wrong[0]} is there, but its MD5 is not that of {name}'s file: it is "
            "damaged, or was changed; get it again, or remove it"
        )
