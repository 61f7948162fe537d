"""A dataset in the shape that an encoder takes: NAME@CxHxW, such as digits@1x28x28.

For transfer: the same images, resized until they cover HxW, the middle cut out, and, if
grey, repeated in colour, as a fixed 8-bit dataset of its own. Sides keep their
proportion. A threat model then counts in pixels of the new size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.datasets.base import Dataset
from zoo.datasets.names import Reading, Shape, shaped_name, split_name
from zoo.datasets.photograph import prepared
from zoo.errors import UserError


def check_channels(name: str, channels: int, shape: Shape) -> None:
    """Raises `UserError` if `channels` would have to become fewer."""
    if channels not in (1, shape[0]):
        raise UserError(
            f"dataset '{name}' asks for {shape[0]} channel(s), but "
            f"'{split_name(name)[0]}' has {channels}; only grey images can be given "
            "other channels"
        )


def fit_shape(x: Tensor, shape: Shape) -> npt.NDArray[np.uint8]:
    """Images (n, C or 1, h, w) in [0, 1] as uint8 (n, *shape).

    Bilinear with antialiasing, to the smallest size that covers `shape`, of which the
    middle is kept; images that have the size keep every pixel.
    """
    if not len(x):
        return np.empty((0, *shape), np.uint8)
    height, width = shape[1:]
    scale = max(height / x.shape[2], width / x.shape[3])
    size = [max(1, round(side * scale)) for side in x.shape[2:]]
    if size != list(x.shape[2:]):
        x = F.interpolate(x, size, mode="bilinear", antialias=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    x = x[:, :, top : top + height, left : left + width]
    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.expand(-1, shape[0], height, width).contiguous().numpy()


def reshape(data: Dataset, reading: Reading) -> Dataset:
    """The images of `data` in another shape, read and resized as needed.

    As `fit_shape` does it, or, where `reading` says a side or an interpolation, as
    `zoo.datasets.photograph`.

    Raises:
        UserError: colour images cannot become grey ones.
    """
    name, shape = shaped_name(data.name, reading), reading.shape
    assert shape is not None
    check_channels(name, data.shape[0], shape)

    def fetch(at: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        x = data.images(torch.from_numpy(np.atleast_1d(at)))
        if reading.resize is None and reading.interpolation is None:
            return fit_shape(x, shape)
        pixels = (x * 255).round().to(torch.uint8).numpy()
        found = np.empty((len(x), *shape), np.uint8)
        for row, image in enumerate(pixels):
            found[row] = prepared(image, reading)
        return found

    return Dataset(
        name=name,
        split=data.split,
        fetch=fetch,
        labels=data.labels.numpy(),
        classes=data.classes,
        shape=shape,
        notes=data.notes,
    )
