"""Adversarials as compact perturbations, so that a proof is smaller than the images.

A perturbation is stored as small integers q and one scale s per example, and means
clip(x + s q, 0, 1). The coarsest of a few grids is chosen for which the rebuilt image
still passes every check of `zoo.evidence`, with a margin between logits that survives
other hardware. Only where no grid passes is the exact float image kept.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from zoo import budgets
from zoo.ball import lengths
from zoo.classifier import predict
from zoo.datasets.base import Dataset
from zoo.errors import VerificationError
from zoo.evidence import check_adversarials
from zoo.evidence_file import Claims
from zoo.margins import margin, spread
from zoo.threat import ThreatModel
from zoo.verification import block

LEVELS = (1, 7, 127, 32767)
"""Largest integer of each grid: signs alone, then 4, 8 and 16 bits."""
NARROW, WIDE, EXACT = 0, 1, 2
"""How an example is stored: 8-bit integers, 16-bit integers, or floats."""
KINDS = {
    "code": ((torch.uint8,), 1),
    "scale": ((torch.float32,), 1),
    "positions": ((torch.int32, torch.int64), 1),
    "attack": ((torch.uint8, torch.int64), 1),
    "narrow": ((torch.uint8,), 1),
    "wide": ((torch.uint8,), 1),
    "exact": ((torch.float32,), 4),
}
"""Dtypes and rank of each tensor."""
MARGIN = 1e-3
"""By how much the wrong logit must win, as a share of the spread of the logits."""


@dataclass(frozen=True)
class _Block:
    """Some examples that are being packed."""

    classifier: nn.Module
    x: Tensor
    y: Tensor
    exact: Tensor
    threat: ThreatModel


def pack(
    classifier: nn.Module, claims: Claims, data: Dataset, threat: ThreatModel
) -> dict[str, Tensor]:
    """The claims as compact tensors, each re-verified after quantisation.

    Args:
        classifier: The one that they fool, on the CPU.
        claims: Verified adversarials.
        data: The evaluated images; `claims.positions` are rows of it.
        threat: What they keep to.
    """
    columns: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    size = block(data.shape)
    for start in range(0, len(claims.positions), size):
        rows = claims.positions[start : start + size]
        some = _Block(
            classifier,
            data.images(rows),
            data.labels[rows],
            claims.images[start : start + size],
            threat,
        )
        for column, part in zip(columns, _pack_block(some), strict=True):
            column.append(part)
    code, scale, grid = map(_joined, columns, _empty(data))
    return {
        "positions": claims.positions.int(),
        "attack": claims.attack_index.to(torch.uint8),
        "code": code,
        "scale": scale,
        "narrow": _squeeze(grid[code == NARROW].to(torch.int8)),
        "wide": _squeeze(grid[code == WIDE]),
        "exact": claims.images[code == EXACT],
    }


def _empty(data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """What no claims at all come to."""
    nothing = torch.zeros(0)
    return nothing.to(torch.uint8), nothing, torch.zeros(0, *data.shape).short()


def _joined(parts: list[Tensor], empty: Tensor) -> Tensor:
    return torch.cat(parts) if parts else empty


def unpack(tensors: dict[str, Tensor], data: Dataset) -> Claims:
    """The claims that `pack` stored, as images again.

    Raises:
        VerificationError: tensors that are missing, damaged, or of another size.
    """
    try:
        _check_kinds(tensors, data.shape)
        code, scale = tensors["code"], tensors["scale"]
        count = len(code)
        positions = tensors["positions"].long()
        if not bool(((positions >= 0) & (positions < len(data))).all()):
            raise VerificationError("the perturbations name images beyond the data")
        narrow, wide = code == NARROW, code == WIDE
        grid = torch.zeros(count, *data.shape)
        grid[narrow] = _unsqueeze(tensors["narrow"], int(narrow.sum()), data.shape, 1)
        grid[wide] = _unsqueeze(tensors["wide"], int(wide.sum()), data.shape, 2)
        images = _rebuild(data.images(positions), grid, scale)
        images[code == EXACT] = tensors["exact"]
        return Claims(
            positions=positions, attack_index=tensors["attack"].long(), images=images
        )
    except (
        KeyError,
        RuntimeError,
        IndexError,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        first = budgets.plain_reason(error)
        raise VerificationError(f"the perturbations are damaged: {first}") from None


def _check_kinds(tensors: dict[str, Tensor], shape: tuple[int, ...]) -> None:
    """Rank and dtype of each tensor, lengths, and what they unpack to."""
    for name, (dtypes, rank) in KINDS.items():
        found = tensors[name]
        if found.dtype not in dtypes or found.ndim != rank:
            raise ValueError(f"{name} is {tuple(found.shape)} of {found.dtype}")
    rows = [tensors[name] for name in ("code", "scale", "positions", "attack")]
    if len({len(column) for column in rows}) > 1:
        raise ValueError("its tensors differ in length")
    size = 4 * len(rows[0]) * math.prod(shape)
    budgets.check(size, 4 * budgets.ARRAY_BYTES, "bytes of adversarials")


def _pack_block(block: _Block) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (n,), scales (n,) and integers (n, C, H, W) of a block."""
    n = len(block.x)
    code = torch.full((n,), EXACT, dtype=torch.uint8)
    scale = torch.zeros(n)
    grid = torch.zeros(block.x.shape, dtype=torch.int16)
    open_rows = torch.arange(n)
    for levels, q, s in _candidates(block):
        if not len(open_rows):
            break
        q, s = q[open_rows], s[open_rows]
        good = _convincing(block, open_rows, q, s)
        done = open_rows[good]
        code[done], scale[done] = NARROW if levels < 128 else WIDE, s[good]
        grid[done] = q[good].to(torch.int16)
        open_rows = open_rows[~good]
    return code, scale, grid


def _candidates(block: _Block) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Grids from coarse to fine; each first pushed to the edge of the ball.

    Whatever lies in the ball and fools is proof, so a perturbation may grow until it
    meets the edge: there it is furthest from the decision boundary.
    """
    delta = block.exact - block.x
    own = lengths(delta, block.threat.norm)
    largest = delta.flatten(1).abs().amax(dim=1).clamp(min=1e-30)
    for levels in LEVELS:
        q = (delta / largest.view(-1, 1, 1, 1) * levels).round()
        size = lengths(q, block.threat.norm).clamp(min=1)
        yield levels, q, block.threat.eps / size
        yield levels, q, own / size


def _convincing(block: _Block, rows: Tensor, q: Tensor, s: Tensor) -> Tensor:
    """Bool (n,): passes every check, and not by a hair's breadth."""
    x, y = block.x[rows], block.y[rows]
    rebuilt = _rebuild(x, q, s)
    fooled = check_adversarials(block.classifier, x, rebuilt, y, block.threat).fooled
    logits = predict(block.classifier, rebuilt)
    return fooled & (-margin(logits, y) > MARGIN * spread(logits))


def _rebuild(x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """clip(x + s q, 0, 1) in float32: the same numbers on every machine."""
    return (x + q.float() * scale.view(-1, 1, 1, 1)).clamp(0, 1)


def _squeeze(grid: Tensor) -> Tensor:
    """Integers as a compressed stream of bytes."""
    raw = np.ascontiguousarray(grid.numpy()).astype(f"<i{grid.element_size()}")
    return torch.frombuffer(
        bytearray(zlib.compress(raw.tobytes(), 6)), dtype=torch.uint8
    )


def _unsqueeze(
    stream: Tensor, count: int, shape: tuple[int, int, int], width: int
) -> Tensor:
    """Integers of a stream; never unpacks more than the expected size."""
    expected = count * shape[0] * shape[1] * shape[2] * width
    opened = zlib.decompressobj()
    raw = opened.decompress(stream.numpy().tobytes(), expected + 1)
    if len(raw) != expected or not opened.eof:
        raise VerificationError(
            f"the perturbations are damaged: {len(raw)} bytes, not {expected}"
        )
    values = np.frombuffer(raw, dtype=f"<i{width}").astype(np.float32)
    return torch.from_numpy(values).view(count, *shape)
