"""Images as people hold them: pairs of arrays, torch datasets, Hugging Face splits.

All are read once, into memory, so that every pass sees the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from zoo.datasets.base import Dataset, from_array, from_tensors
from zoo.errors import UserError

Classes = int | Sequence[str] | None
"""Their number or their names; None if the data are to say."""
ACCEPTED = (
    "a registered name, robrep's Dataset, a pair (images, labels), a torch Dataset or "
    "DataLoader, or a split of Hugging Face datasets"
)


def as_datasets(
    test: object | None,
    train: object | None,
    *,
    name: str = "own",
    classes: Classes = None,
) -> tuple[Dataset | None, Dataset | None]:
    """Both splits in robrep's own form, with one list of classes.

    Args:
        test: One of `ACCEPTED`, a name excepted, or None. Images are (C, H, W),
            floats in [0, 1] or uint8, or Pillow images; labels are whole numbers from
            0.
        train: The same, or None.
        name: For the record, where the data have none.
        classes: By default what the data say (`classes`, or the names of a
            `ClassLabel`), else the numbers up to the largest label of both splits.

    Raises:
        UserError: data of another kind; images of several shapes; an image that is
            not the same when it is read again; whatever `from_tensors` refuses.
    """
    first, second = (
        one if isinstance(one, Dataset) else _read(one) for one in (test, train)
    )
    names = _names([first, second], classes)
    return (
        _made(first, name=name, split="test", classes=names),
        _made(second, name=name, split="train", classes=names),
    )


_Read = tuple[Tensor, Tensor, tuple[str, ...] | None]
"""Images, labels, and names of the classes if they are known."""


def _read(data: object) -> _Read | None:
    if data is None:
        return None
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return _tensor(data[0]), _tensor(data[1]), None
    if isinstance(data, DataLoader):
        return _read(_of_loader(data))
    if isinstance(data, IterableDataset) or not _by_index(data):
        raise UserError(
            f"data of type {type(data).__name__} cannot be read; give {ACCEPTED}"
        )
    if hasattr(data, "features") and hasattr(data, "column_names"):
        return _of_hugging_face(data)
    names = getattr(data, "classes", None)
    said = tuple(names) if isinstance(names, (list, tuple)) else ()
    known = bool(said) and all(isinstance(n, str) for n in said)
    return *_stacked(data, 0, 1), said if known else None


def _by_index(data: object) -> bool:
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _tensor(values: object) -> Tensor:
    try:
        return values if isinstance(values, Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f"a {type(values).__name__} is no array of images or labels; give "
            f"{ACCEPTED}"
        ) from None


def _of_loader(loader: DataLoader[Any]) -> object:
    """The dataset behind it: order and batches are robrep's own affair."""
    if loader.batch_size is None or type(loader.sampler) not in (
        SequentialSampler,
        RandomSampler,
    ):
        raise UserError(
            "a DataLoader with a sampler of its own chooses images that cannot be "
            "known beforehand; pass a torch.utils.data.Subset in place of it"
        )
    if loader.collate_fn is default_collate:
        return loader.dataset
    return _Collated(loader)


class _Collated:
    """What a loader's own `collate_fn` makes of each image alone."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.data, self.collate = loader.dataset, loader.collate_fn
        self.classes = getattr(loader.dataset, "classes", None)

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, at: int) -> tuple[Any, Any]:
        batch = self.collate([self.data[at]])
        try:
            images, labels = batch
            (image,), (label,) = images, labels
        except (TypeError, ValueError):
            raise UserError(
                "the DataLoader's collate_fn does not make (images, labels), one of "
                f"each, from one item (it makes a {type(batch).__name__}); pass the "
                "dataset itself"
            ) from None
        return image, label


def _of_hugging_face(data: Any) -> _Read:
    """The image column and the label column, found by their type."""
    kinds = {name: type(kind).__name__ for name, kind in data.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"a split must have one Image and one ClassLabel column, not "
            f"{len(images)} and {len(labels)} (columns: {', '.join(kinds)}); use "
            "select_columns and cast_column"
        )
    return *_stacked(data, images[0], labels[0]), tuple(data.features[labels[0]].names)


def _stacked(data: Any, image: int | str, label: int | str) -> tuple[Tensor, Tensor]:
    """All images (N, C, H, W) and labels (N,), each item read once."""
    if not len(data):
        raise UserError("there are no images in the data")
    first, again = _pixels(_item(data, 0)[image]), _pixels(_item(data, 0)[image])
    if not torch.equal(first, again):
        raise UserError(
            "the first image differs when it is read again: leave random augmentation "
            "out of the data's transform"
        )
    images = torch.empty((len(data), *first.shape), dtype=first.dtype)
    labels = []
    for at, item in enumerate(_items(data)):
        pixels = _pixels(item[image])
        if pixels.shape != first.shape or pixels.dtype != first.dtype:
            raise UserError(
                f"image {at} is {pixels.dtype} of shape {tuple(pixels.shape)}, but the "
                f"first is {first.dtype} of shape {tuple(first.shape)}; give all one "
                "shape and mode in the data's transform"
            )
        images[at] = pixels
        labels.append(float(item[label]))
    return images, torch.tensor(labels, dtype=torch.float64)


def _items(data: Any) -> Iterator[Any]:
    return (_item(data, at) for at in range(len(data)))


def _item(data: Any, at: int) -> Any:
    item = data[at]
    if isinstance(item, Mapping) or (isinstance(item, (tuple, list)) and len(item) > 1):
        return item
    raise UserError(
        f"item {at} of the data is a {type(item).__name__}, not a pair (image, label)"
    )


def _pixels(image: object) -> Tensor:
    """One image (C, H, W), float or uint8."""
    from PIL import Image

    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB"):
            raise UserError(
                f"a Pillow image has mode {image.mode}; convert it to RGB or L in the "
                "data's transform"
            )
        array: npt.NDArray[Any] = np.array(image)
        return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(
            2, 0, 1
        )
    return _tensor(image).detach().cpu()


def _names(read: Sequence[Dataset | _Read | None], classes: Classes) -> tuple[str, ...]:
    """What is asked for, else what the data say, else numbers."""
    if classes is not None:
        return (
            tuple(map(str, range(classes)))
            if isinstance(classes, int)
            else tuple(classes)
        )
    for one in read:
        said = one.classes if isinstance(one, Dataset) else one and one[2]
        if said is not None:
            return said
    labels = [one[1] for one in read if isinstance(one, tuple) and one[1].numel()]
    return tuple(str(i) for i in range(1 + int(max(y.max().item() for y in labels))))


def _made(
    read: Dataset | _Read | None, *, name: str, split: str, classes: Sequence[str]
) -> Dataset | None:
    if read is None or isinstance(read, Dataset):
        return read
    x, y, _ = read
    first = x.ndim == 4 and x.shape[1] in (1, 2, 3, 4)
    if x.ndim == 4 and min(x.shape[1:3]) > 4 and x.shape[3] in (1, 2, 3, 4):
        raise UserError(
            f"images must be of shape (N, C, H, W), not {tuple(x.shape)}: channels "
            "come first (tensor.permute(0, 3, 1, 2), array.transpose(0, 3, 1, 2))"
        )
    if x.dtype != torch.uint8:
        return from_tensors(x, y, name=name, classes=classes, split=split)
    if not first:
        raise UserError(
            f"images must be of shape (N, C, H, W), not {tuple(x.shape)}; channels "
            "come first"
        )
    if not len(x):
        raise UserError(f"dataset '{name}' has no images in split '{split}'")
    return from_array(
        x.detach().cpu().numpy(),
        y.detach().cpu().numpy(),
        name=name,
        split=split,
        classes=classes,
    )
