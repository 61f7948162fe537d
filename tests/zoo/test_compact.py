"""Packed adversarials: every bit comes back, and what is damaged is refused."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo.ball import project
from zoo.compact import CODED, NONE, PLAIN, Images, Packed, Rows, pack, plain
from zoo.errors import VerificationError
from zoo.threat import Norm, ThreatModel

SHAPE = (3, 7, 5)  # an odd number of pixels: the last byte of codes is not full
CASES = [("Linf", 8 / 255, 0.6), ("L2", 0.5, 0.95), ("L1", 2.0, 0.5)]
"""Norm, radius, and the share of the float's bytes that is left at most."""


def _points(norm: Norm, eps: float, count: int = 40) -> tuple[Tensor, Tensor]:
    """Clean images in 256 levels, and points of the ball as an attack leaves them."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (count, *SHAPE), generator=draws).float().div_(255)
    moved = x + 0.1 * torch.randn(x.shape, generator=draws)
    return x, project(moved, x, ThreatModel(norm=norm, eps=eps))


def _unpacked(packed: Packed, x: Tensor, threat: ThreatModel) -> Images:
    return Images(packed, lambda numbers: x[numbers], SHAPE, threat)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.contiguous().view(torch.int32))


@pytest.mark.parametrize(("norm", "eps", "share"), CASES)
def test_every_bit_comes_back_of_fewer_bytes(
    norm: Norm, eps: float, share: float
) -> None:
    threat = ThreatModel(norm=norm, eps=eps)
    x, found = _points(norm, eps)
    packed = pack(found, x, threat)
    images = _unpacked(packed, x, threat)
    assert _same_bits(images[:], found)
    assert images.shape == found.shape
    assert len(packed.stream) < share * 4 * found.numel()


def test_numbers_far_from_any_image_come_back_too() -> None:
    draws = torch.Generator().manual_seed(1)
    bits = torch.randint(-(2**31), 2**31, (20, *SHAPE), generator=draws)
    odd = bits.to(torch.int32).view(torch.float32)  # NaN, infinities, denormals
    odd[0] = -0.0
    x = torch.zeros(odd.shape)
    threat = ThreatModel(norm="Linf", eps=0.1)
    packed = pack(odd, x, threat)
    assert _same_bits(_unpacked(packed, x, threat)[:], odd)
    kinds = [packed.stream[start] for start in [0, *packed.ends[:-1].tolist()]]
    assert PLAIN in kinds[1:], "noise is kept as it is"
    assert kinds[0] == CODED


def test_rows_are_chosen_as_from_a_tensor() -> None:
    threat = ThreatModel(norm="Linf", eps=8 / 255)
    x, found = _points("Linf", 8 / 255, count=6)
    images = _unpacked(pack(found, x, threat), x, threat)
    mask = torch.tensor([True, False, False, True, False, True])
    chosen: list[Rows] = [
        slice(2, 5),
        slice(4, 99),
        [5, 0, 0],
        torch.tensor([3]),
        mask,
        [],
    ]
    for rows in chosen:
        assert torch.equal(images[rows], found[rows])
    assert torch.equal(torch.stack(list(images)), found)
    assert len(_unpacked(NONE, x, threat)) == 0
    assert _unpacked(NONE, x, threat)[:].shape == (0, *SHAPE)


def test_without_clean_images_they_are_kept_as_they_are() -> None:
    threat = ThreatModel(norm="L2", eps=0.5)
    x, found = _points("L2", 0.5, count=3)
    assert _same_bits(_unpacked(plain(found), x, threat)[:], found)


@pytest.mark.parametrize(
    ("stream", "ends"),
    [
        (torch.zeros(4), torch.tensor([4])),
        (torch.zeros(4, dtype=torch.uint8), torch.tensor([4.0])),
        (torch.zeros(4, dtype=torch.uint8), torch.tensor([[4]])),
        (torch.zeros(4, dtype=torch.uint8), torch.tensor([3])),
        (torch.zeros(4, dtype=torch.uint8), torch.tensor([3, 2, 4])),
        (torch.zeros(4, dtype=torch.uint8), torch.tensor([0, 4])),
        (torch.zeros(4, dtype=torch.uint8), torch.tensor([-1, 4])),
        (torch.zeros(4, dtype=torch.uint8), torch.tensor([2**63 - 1, -(2**62) - 1, 4])),
        (torch.zeros(4, dtype=torch.uint8), torch.tensor([], dtype=torch.int64)),
    ],
)
def test_ends_must_divide_the_stream(stream: Tensor, ends: Tensor) -> None:
    with pytest.raises(ValueError, match=r"'(stream|ends)' "):
        Packed(stream, ends)


def test_a_damaged_image_is_named_or_another_image() -> None:
    """Never anything else, and never more memory than an image takes."""
    threat = ThreatModel(norm="Linf", eps=8 / 255)
    x, found = _points("Linf", 8 / 255, count=2)
    packed = pack(found, x, threat)
    dice = random.Random(0)
    refused = 0
    for _ in range(300):
        stream = packed.stream.clone()
        stream[dice.randrange(len(stream))] ^= 1 << dice.randrange(8)
        images = _unpacked(Packed(stream, packed.ends), x, threat)
        try:
            shape = images[:].shape
        except VerificationError:
            refused += 1
        else:
            assert shape == found.shape
    assert refused > 250  # zlib has a checksum


def test_what_unpacks_to_more_than_an_image_is_refused() -> None:
    import zlib

    threat = ThreatModel(norm="Linf", eps=0.1)
    x = torch.zeros(1, *SHAPE)
    bomb = bytes([CODED]) + zlib.compress(bytes(1 << 20))
    stream = torch.frombuffer(bytearray(bomb), dtype=torch.uint8)
    packed = Packed(stream, torch.tensor([len(stream)]))
    with pytest.raises(VerificationError, match="adversarial 0 is damaged"):
        _unpacked(packed, x, threat)[:]


@pytest.mark.parametrize("change", [lambda text: text[:-2], lambda text: text + b"zz"])
def test_a_stream_that_is_too_short_or_long_is_told(
    change: Callable[[bytes], bytes],
) -> None:
    threat = ThreatModel(norm="Linf", eps=8 / 255)
    x, found = _points("Linf", 8 / 255, count=1)
    text = change(bytes(pack(found, x, threat).stream.tolist()))
    stream = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    packed = Packed(stream, torch.tensor([len(stream)]))
    with pytest.raises(VerificationError, match="cut off, or something follows it"):
        _unpacked(packed, x, threat)[:]
