"""One image file as 8-bit pixels: what is taken, what becomes of it, what is refused.

| file | becomes |
|---|---|
| 8 bits, grey or colour | its pixels, unchanged |
| 16 bits, grey | value / 257, rounded: 65535 is white, whatever the file uses |
| transparent (alpha channel or marked colour) | laid on white |
| palette, CMYK, YCbCr | RGB as Pillow converts it; ICC profiles are not applied |
| turned by its metadata (EXIF) | upright |
| a camera's JPEG with a preview (MPO) | the photograph |
| animations, several pages, 32-bit integers, floats, broken files | `UserError` |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from zoo import budgets
from zoo.errors import UserError

SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"],
)
SIXTEEN_BITS = frozenset(("I;16", "I;16L", "I;16B", "I;16N", "I"))
GREY = SIXTEEN_BITS | {"1", "L", "LA"}
COLOUR = frozenset(("P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"))
FIRST_TURNED_ON_ITS_SIDE = 5
"""EXIF orientations from this one on exchange height and width."""


@dataclass(frozen=True)
class Header:
    """What is known of an image without decoding it."""

    height: int
    """Upright, as `width`."""
    width: int
    grey: bool
    """By the kind of file; a colour file with grey pixels is in colour."""


def read_header(path: Path) -> Header:
    """Size and colour of an image.

    Raises:
        UserError: names the file that cannot be read, or is of a kind that is refused.
    """
    with _opened(path) as image:
        width, height = image.size
        if _orientation(image) >= FIRST_TURNED_ON_ITS_SIDE:
            width, height = height, width
        return Header(height, width, grey=image.mode in GREY)


def read_pixels(path: Path, channels: int) -> npt.NDArray[np.uint8]:
    """The image upright, uint8 (channels, H, W); 1 channel is grey, 3 are RGB.

    Raises:
        UserError: as `read_header`; pixels that are cut off or damaged.
    """
    with _opened(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in SIXTEEN_BITS:
            grey = _eight_bits(image)
            return np.repeat(grey[None], channels, axis=0)
        pixels = np.asarray(_on_white(image).convert("L" if channels == 1 else "RGB"))
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        budgets.regular(path)
        with Image.open(path) as image:
            with budgets.naming(path):
                budgets.check(image.width * image.height, budgets.PIXELS, "pixels")
            _check_kind(image, path)
            yield image
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise budgets.BudgetError(
            f"{path} is refused: it has more than {budgets.PIXELS:,} pixels"
        ) from None
    except Exception as error:  # a damaged file fails in all ways there are
        raise UserError(
            f"cannot read image {path}: {budgets.plain_reason(error)}; get it again, "
            "or remove it"
        ) from None


def _check_kind(image: Image.Image, path: Path) -> None:
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise UserError(
            f"{path} holds several images (an animation, or pages); save the one that "
            "is meant as a file of its own"
        )
    # Only these two formats say that 65535 is white; elsewhere the range is unknown.
    unknown = image.mode == "I" and image.format not in ("PNG", "PPM")
    if unknown or image.mode not in GREY | COLOUR:
        raise UserError(
            f"{path} is of mode '{image.mode}', in which no value is known to be "
            "white; save it with 8 or 16 bits a channel, grey or RGB"
        )


def _orientation(image: Image.Image) -> int:
    """As EXIF counts, 1 to 8, read without decoding the image."""
    if image.format == "TIFF":
        return 1  # `size` is upright already
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # `getexif` would decode the image to look behind its pixels
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _eight_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey of 16 bits as uint8 (H, W), rounded to the nearest."""
    wide = np.asarray(image).astype(np.uint32)
    pixels = ((wide + 128) // 257).astype(np.uint8)
    if "transparency" in image.info:
        pixels[wide == image.info["transparency"]] = 255
    return pixels


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    above = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
