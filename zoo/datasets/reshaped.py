"""A dataset in the shape that an encoder takes: NAME@CxHxW, such as digits@1x28x28.

For transfer: the same images, resized and, if grey, repeated in colour, as a fixed
8-bit dataset of its own. A threat model then counts in pixels of the new size.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from zoo.datasets.base import Dataset
from zoo.errors import UserError

MARK = "@"


def split_name(name: str) -> tuple[str, tuple[int, int, int] | None]:
    """ "digits@1x28x28" as ("digits", (1, 28, 28)); the shape is None without "@".

    Raises:
        UserError: what follows the mark is no shape.
    """
    base, mark, text = name.partition(MARK)
    if not mark:
        return name, None
    found = re.fullmatch(r"([13])x([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if found is None:
        raise UserError(
            f"'{text}' in dataset '{name}' is no shape; write CxHxW with 1 or 3 "
            "channels, such as 3x32x32"
        )
    channels, height, width = map(int, found.groups())
    return base, (channels, height, width)


def reshape(data: Dataset, shape: tuple[int, int, int]) -> Dataset:
    """The images of `data` in another shape (C, H, W), read and resized as needed.

    Raises:
        UserError: colour images cannot become grey ones.
    """
    name = f"{data.name}{MARK}{'x'.join(map(str, shape))}"
    channels = data.shape[0]
    if channels not in (1, shape[0]):
        raise UserError(
            f"dataset '{name}' asks for {shape[0]} channel(s), but '{data.name}' has "
            f"{channels}; only grey images can be given other channels"
        )

    def fetch(at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        x = data.images(torch.from_numpy(np.atleast_1d(at)))
        if x.shape[2:] != shape[1:]:
            x = F.interpolate(x, shape[1:], mode="bilinear", antialias=True)
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels.expand(-1, shape[0], -1, -1).contiguous().numpy()

    return Dataset(
        name=name,
        split=data.split,
        fetch=fetch,
        labels=data.labels.numpy(),
        classes=data.classes,
        shape=shape,
    )
