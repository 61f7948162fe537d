"""Every kind of image file becomes the pixels that it shows, or is refused by name."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from zoo.datasets.image_file import read_header, read_pixels
from zoo.errors import UserError

Pixels = npt.NDArray[Any]
RNG = np.random.default_rng(0)
COLOURED = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_grey_to_half_a_level(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"x.{suffix}"
    wide = np.linspace(0, 65535, 63).astype(np.uint16).reshape(7, 9)
    if suffix == "pgm":
        path.write_bytes(b"P5 9 7 65535\n" + wide.astype(">u2").tobytes())
    else:
        Image.fromarray(wide).save(path)
    assert read_header(path).grey
    found = read_pixels(path, 1)
    np.testing.assert_allclose(found[0] / 255, wide / 65535, atol=0.501 / 255)
    assert (found.min(), found.max()) == (0, 255)
    np.testing.assert_array_equal(read_pixels(path, 3), np.repeat(found, 3, axis=0))


def test_sixteen_bits_in_colour_keep_their_upper_half(tmp_path: Path) -> None:
    wide = RNG.integers(0, 65536, (4, 3, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    header = struct.pack(">IIBBBBB", 3, 4, 16, 2, 0, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(rows))
        + _chunk(b"IEND", b"")
    )
    assert not read_header(path).grey
    want = wide.transpose(2, 0, 1) / 65535
    np.testing.assert_allclose(read_pixels(path, 3) / 255, want, atol=1 / 255)


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def test_big_endian_tiff(tmp_path: Path) -> None:
    wide = np.array([[0, 255, 256, 40 * 257], [65535, 1, 257, 32768]], np.uint16)
    own = _tiff(wide.astype(">u2").tobytes(), width=4, height=2)
    path = tmp_path / "x.tif"
    path.write_bytes(own)
    np.testing.assert_allclose(
        read_pixels(path, 1)[0] / 255, wide / 65535, atol=0.501 / 255
    )


def _tiff(data: bytes, *, width: int, height: int) -> bytes:
    """A big-endian grey TIFF of 16 bits, written by hand from the format's page."""
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 1)]
    start = 8 + 2 + 12 * (len(tags) + 4) + 4
    tags += [(273, start), (277, 1), (278, height), (279, len(data))]
    rows = b"".join(
        tag.to_bytes(2, "big")
        + (4).to_bytes(2, "big")
        + (1).to_bytes(4, "big")
        + value.to_bytes(4, "big")
        for tag, value in tags
    )
    directory = len(tags).to_bytes(2, "big") + rows + bytes(4)
    return b"MM\0*" + (8).to_bytes(4, "big") + directory + data


def test_transparent_pixels_are_laid_on_white(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (5, 7, 1), dtype=np.uint8)
    alpha[0] = 255
    path = tmp_path / "x.png"
    Image.fromarray(np.concatenate([COLOURED, alpha], axis=2)).save(path)
    share = alpha / 255
    want = (COLOURED * share + 255 * (1 - share)).transpose(2, 0, 1)
    found = read_pixels(path, 3)
    np.testing.assert_allclose(found, want, atol=1)
    np.testing.assert_array_equal(found[:, 0], COLOURED.transpose(2, 0, 1)[:, 0])
    both = np.concatenate([COLOURED[..., :1], alpha], axis=2)
    Image.fromarray(both).save(path)
    assert read_header(path).grey
    np.testing.assert_allclose(read_pixels(path, 1)[0], want[0], atol=1)


@pytest.mark.parametrize(
    ("mode", "dtype"), [("L", np.uint8), ("I;16", np.uint16), ("P", np.uint8)]
)
def test_a_colour_marked_as_transparent_is_white(
    tmp_path: Path, mode: str, dtype: type
) -> None:
    values: Pixels = np.arange(6, dtype=dtype).reshape(2, 3)
    image = Image.fromarray(values)
    if mode == "P":
        image = image.convert("P")
        image.putpalette([level for i in range(256) for level in (i, 0, 9)])
    path = tmp_path / "x.png"
    image.save(path, transparency=4)
    shown = read_pixels(path, 3)
    assert shown[:, 1, 1].tolist() == [255, 255, 255]
    first = [0, 0, 9] if mode == "P" else [0, 0, 0]
    assert shown[:, 0, 0].tolist() == first


def test_a_palette_is_colour(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([200, 10, 30, 0, 255, 7])
    for suffix in ("png", "gif", "bmp"):
        path = tmp_path / f"x.{suffix}"
        image.save(path)
        assert not read_header(path).grey
        assert read_pixels(path, 3)[:, 0].T.tolist() == [[200, 10, 30], [0, 255, 7]]


def test_cmyk_is_ink_on_white(tmp_path: Path) -> None:
    ink = np.array([40, 200, 0, 100])
    path = tmp_path / "x.jpg"
    flat = np.broadcast_to(ink.astype(np.uint8), (16, 16, 4)).copy()
    Image.frombytes("CMYK", (16, 16), flat.tobytes()).save(path, quality=100)
    want = (255 - ink[:3]) * (255 - ink[3]) / 255
    found = read_pixels(path, 3)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), want, atol=3)


UPRIGHT = {
    1: lambda s: s,
    2: lambda s: s[:, ::-1],
    3: lambda s: s[::-1, ::-1],
    4: lambda s: s[::-1],
    5: lambda s: s.swapaxes(0, 1),
    6: lambda s: np.rot90(s, -1),
    7: lambda s: s[::-1, ::-1].swapaxes(0, 1),
    8: lambda s: np.rot90(s, 1),
}
"""EXIF 2.3, 4.6.4: what a viewer does to the stored rows of each orientation."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_images_turned_by_their_metadata_are_upright(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    stored = np.kron(COLOURED[:3, :4], np.ones((16, 16, 1), np.uint8))
    image = Image.fromarray(stored)
    exif = image.getexif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    image.save(path, exif=exif, **({"quality": 100} if suffix == "jpg" else lossless))
    want = UPRIGHT[orientation](stored).transpose(2, 0, 1)
    found = read_pixels(path, 3)
    assert found.shape == want.shape
    mean_error = np.abs(found.astype(int) - want).mean()
    assert mean_error < (5 if suffix == "jpg" else 1e-9)
    header = read_header(path)
    assert (header.height, header.width) == want.shape[1:]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_images_in_a_file_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = tmp_path / f"x.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=rf"x\.{suffix} holds several images"):
        read_header(path)
    frames[0].save(path)
    assert read_header(path).width == 8


def test_a_cameras_preview_is_not_the_photograph(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    photo, preview = Image.new("RGB", (16, 8), "red"), Image.new("RGB", (4, 2), "blue")
    photo.save(path, format="MPO", save_all=True, append_images=[preview])
    found = read_pixels(path, 3)
    assert found.shape == (3, 8, 16)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), [255, 0, 0], atol=3)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_known_white_are_refused(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(np.ones((4, 4), dtype)).save(path)
    with pytest.raises(UserError, match=r"x\.tif is of mode '[FI]'.*8 or 16 bits"):
        read_header(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "gif", "bmp", "webp", "ppm"])
def test_damaged_files_are_named_and_raise_nothing_else(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for length in np.linspace(1, len(whole) * 0.9, 25).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"cannot read image .*x\.{suffix}: "):
            read_pixels(path, 3)
    for _ in range(150):
        broken = np.frombuffer(whole, np.uint8).copy()
        broken[RNG.integers(0, min(len(whole), 200), 3)] = RNG.integers(0, 256, 3)
        path.write_bytes(broken.tobytes())
        with suppress(UserError):
            read_pixels(path, 3)
