"""Adversarials in fewer bytes, each of which comes back bit by bit.

Most pixels of an adversarial are the clean one, or lie at an end of what the threat
model allows. Two bits say which; what lies elsewhere is kept as its difference from
the clean pixel, in the order of floats. `zoo.deltas` is smaller still, but comes back
as another adversarial.

Of each image there is a byte `PLAIN`, then its floats, or a byte `CODED`, then a zlib
stream of two bits a pixel, lowest first, and the differences, int32, byte plane by
byte plane.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.errors import VerificationError
from zoo.threat import ThreatModel

PLAIN, CODED = 0, 1
ELSEWHERE = 3
"""The code of a pixel that is none of the three that are expected."""
LEVEL = 1
"""Of zlib; what is left to it is mostly noise."""
Rows = Sequence[int] | slice | Tensor
Bits = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Packed:
    """Images one behind the other.

    Raises:
        ValueError: not of that form.
    """

    stream: Tensor
    """uint8 (bytes,)."""
    ends: Tensor
    """Where each image ends in it, int64 (k,)."""

    def __post_init__(self) -> None:
        for name, tensor, dtype in (
            ("stream", self.stream, torch.uint8),
            ("ends", self.ends, torch.int64),
        ):
            if tensor.dtype is not dtype or tensor.ndim != 1:
                raise ValueError(
                    f"'{name}' is {tensor.dtype} of shape {tuple(tensor.shape)}, not "
                    f"{dtype} of one dimension"
                )
        bounds = [0, *self.ends.tolist()]  # no tensor: differences could overflow
        rising = all(start < end for start, end in pairwise(bounds))
        if not rising or bounds[-1] != len(self.stream):
            raise ValueError(
                f"'ends' does not divide the {len(self.stream)} bytes of 'stream'"
            )

    def __len__(self) -> int:
        return len(self.ends)


NONE = Packed(torch.zeros(0, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
"""No images."""


class Images:
    """Packed adversarials by number, each of which is unpacked when it is asked for.

    Args:
        packed: The adversarials.
        origins: Clean images float32 (n, C, H, W) of int64 numbers (n,).
        shape: (C, H, W).
        threat: That they were packed with.
    """

    def __init__(
        self,
        packed: Packed,
        origins: Callable[[Tensor], Tensor],
        shape: tuple[int, int, int],
        threat: ThreatModel,
    ) -> None:
        self.packed, self.origins, self.threat = packed, origins, threat
        self.shape = (len(packed), *shape)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, rows: Rows) -> Tensor:
        """Float32 (n, C, H, W); a mask chooses as numbers do.

        Raises:
            VerificationError: damaged.
        """
        numbers = torch.arange(len(self))[rows]
        x = self.origins(numbers)
        found = [self._one(int(n), own) for n, own in zip(numbers, x, strict=True)]
        return torch.stack(found) if found else torch.zeros(0, *self.shape[1:])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[[number]][0] for number in range(len(self)))

    def _one(self, number: int, x: Tensor) -> Tensor:
        start = int(self.packed.ends[number - 1]) if number else 0
        own = self.packed.stream[start : int(self.packed.ends[number])].numpy()
        try:
            bits = _restore(own.tobytes(), x, self.threat)
        except (ValueError, zlib.error) as error:
            raise VerificationError(
                f"adversarial {number} is damaged: {error}"
            ) from None
        return torch.from_numpy(bits).view(torch.float32).view(x.shape)


def pack(images: Tensor, x: Tensor, threat: ThreatModel) -> Packed:
    """Packs adversarials (k, C, H, W) of clean images (k, C, H, W), both float32."""
    pairs = zip(images.cpu(), x.cpu(), strict=True)
    return _joined([_squeeze(image, clean, threat) for image, clean in pairs])


def plain(images: Tensor) -> Packed:
    """The same without any packing, where clean images are not at hand."""
    return _joined([_plain(image) for image in images])


def _joined(parts: list[bytes]) -> Packed:
    if not parts:
        return NONE
    ends = torch.tensor([len(part) for part in parts]).cumsum(0)
    return Packed(torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8), ends)


def _plain(image: Tensor) -> bytes:
    return bytes([PLAIN]) + _bits(image).astype("<i4").tobytes()


def _bits(image: Tensor) -> Bits:
    """Floats as the integers that stand for them, flat."""
    found: Bits = image.contiguous().view(torch.int32).flatten().numpy()
    return found


def _expected(x: Tensor, threat: ThreatModel) -> list[Bits]:
    """What a pixel is mostly: the clean one, or one at an end of what is allowed.

    The sums are float32, as `zoo.ball.project` takes them: the same on any machine.
    """
    if threat.norm == "Linf":
        ends = [(x + threat.eps).clamp(max=1), (x - threat.eps).clamp(min=0)]
    else:
        ends = [torch.zeros_like(x), torch.ones_like(x)]
    return [_bits(value) for value in (x, *ends)]


def _squeeze(image: Tensor, x: Tensor, threat: ThreatModel) -> bytes:
    """One image, coded if that is shorter."""
    bits, expected = _bits(image), _expected(x, threat)
    codes = np.full(-(-len(bits) // 4) * 4, ELSEWHERE, dtype=np.uint8)
    codes[len(bits) :] = 0
    for code in reversed(range(len(expected))):
        codes[: len(bits)][bits == expected[code]] = code
    elsewhere = codes[: len(bits)] == ELSEWHERE
    rest = (bits[elsewhere] - expected[0][elsewhere]).astype("<i4")
    four = codes.reshape(-1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8)
    planes = rest.view(np.uint8).reshape(-1, 4).T.tobytes()
    text = np.bitwise_or.reduce(four, axis=1).astype(np.uint8).tobytes() + planes
    coded = bytes([CODED]) + zlib.compress(text, LEVEL)
    return coded if len(coded) < 1 + 4 * len(bits) else _plain(image)


def _restore(text: bytes, x: Tensor, threat: ThreatModel) -> Bits:
    """The integers of one image; never unpacks more than its size.

    Raises:
        ValueError, zlib.error: damaged.
    """
    count = math.prod(x.shape)
    if text[0] == PLAIN and len(text) == 1 + 4 * count:
        return np.frombuffer(text, "<i4", offset=1).astype(np.int32)
    if text[0] != CODED:
        raise ValueError(f"{len(text)} bytes of kind {text[0]}")
    packed, opened = -(-count // 4), zlib.decompressobj()
    raw = opened.decompress(text[1:], packed + 4 * count + 1)
    four = np.frombuffer(raw[:packed], np.uint8)
    codes = (four[:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8) & 3).reshape(-1)
    elsewhere = codes[:count] == ELSEWHERE
    size = packed + 4 * int(elsewhere.sum())
    if len(raw) != size:
        raise ValueError(f"it unpacks to {len(raw)} bytes, not {size}")
    if not opened.eof or opened.unused_data:
        raise ValueError("its zlib stream is cut off, or something follows it")
    expected = _expected(x, threat)
    bits: Bits = np.choose(np.minimum(codes[:count], 2), expected).astype(np.int32)
    planes = np.frombuffer(raw[packed:], np.uint8).reshape(4, -1)
    rest = np.ascontiguousarray(planes.T).view("<i4").reshape(-1)
    bits[elsewhere] = expected[0][elsewhere] + rest
    return bits
