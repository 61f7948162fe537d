"""Photographs in the shape that an encoder takes, as the field prepares them.

The shorter side is resized to crop / 0.875 (256 for 224) with bicubic interpolation
and antialiasing, as Pillow does it on 8-bit pixels, and the middle is cut out:
torchvision's `Resize` and `CenterCrop`. For a shape that is no square, the image is
resized until it covers the shape so enlarged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoo.datasets.names import Reading

MARGIN = 0.875
"""Of a side, what is kept of it: 224 of 256."""
USUAL = "bicubic"


def prepared(pixels: npt.NDArray[np.uint8], reading: Reading) -> npt.NDArray[np.uint8]:
    """An image (C, H, W) in the shape of `reading`; grey is repeated where C is 3."""
    from torchvision.transforms import functional as tv
    from torchvision.transforms.functional import InterpolationMode

    assert reading.shape is not None
    channels, height, width = reading.shape
    grey = pixels.shape[0] == 1
    image = Image.fromarray(pixels[0] if grey else pixels.transpose(1, 2, 0))
    shorter = reading.resize or round(min(height, width) / MARGIN)
    goal: list[int] = [shorter]
    if height != width:
        scale = shorter / min(height, width)
        scale *= max(height / image.height, width / image.width)
        sides = (round(image.height * scale), round(image.width * scale))
        goal = [max(height, sides[0]), max(width, sides[1])]
    mode = InterpolationMode(reading.interpolation or USUAL)
    image = tv.center_crop(tv.resize(image, goal, mode), [height, width])
    found: npt.NDArray[np.uint8] = np.asarray(image)
    if grey:
        return np.repeat(found[None], channels, axis=0)
    return found.transpose(2, 0, 1)
