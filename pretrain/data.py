"""Training images: which of them, in which order, and how they reach a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from pretrain import distributed
from pretrain.randomness import generator
from pretrain.recipe import Recipe
from zoo.datasets.base import Dataset
from zoo.datasets.workers import read
from zoo.errors import UserError

IN_MEMORY = 1 << 30
"""Bytes of pixels up to which a set is read once and kept; larger ones are streamed,
so memory does not grow with the dataset."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """What training sees, and what it never sees."""

    train: Dataset
    held_out: Dataset


class Rows(NamedTuple):
    """Images of one step in one process."""

    x: Tensor
    """(n, C, H, W) in [0, 1]."""
    y: Tensor
    """Labels (n, k)."""
    images: Tensor
    """Their numbers (n,) in the training set, int64, on the CPU."""

    def split(self, parts: int) -> list[Rows]:
        """In equal parts, of which n must be a multiple."""
        size = len(self.x) // parts
        found = (values.split(size) for values in self)
        return [Rows(*values) for values in zip(*found, strict=True)]


def watched(recipe: Recipe, data: Dataset) -> bool:
    """Whether held-out images are looked at: a probe needs labels, a comparison of
    features without them an attack."""
    seen = data.labelled or recipe.threat is not None
    return recipe.monitor.every > 0 and seen


def divide(data: Dataset, recipe: Recipe) -> Split:
    """A random part is held out to watch the training; it never reaches a step.

    Raises:
        UserError: too few images for one batch.
    """
    data = data.take(recipe.limit)
    order = torch.randperm(len(data), generator=generator(recipe.seed, "split"))
    held = 0
    if watched(recipe, data):
        held = max(1, round(recipe.monitor.held_out * len(data)))
    left = len(data) - held
    if left < recipe.batch:
        raise UserError(
            f"batch {recipe.batch} is larger than the {left} training images of "
            f"'{data.name}' ({len(data)} less {held} held out); use "
            + ("a smaller --batch" if left > 1 else "more images")
        )
    parts = distributed.world() * recipe.accumulate
    if recipe.batch % parts or recipe.batch < 2 * parts:
        in_parts = f" in {recipe.accumulate} parts each" * (recipe.accumulate > 1)
        raise UserError(
            f"batch {recipe.batch} cannot be divided among "
            f"{distributed.world()} processes{in_parts}; use a multiple, two images "
            "for each at least"
        )
    return Split(
        train=data.subset(order[held:].sort().values),
        held_out=data.subset(order[:held].sort().values),
    )


class Batches:
    """Batches of one process, reproducible from seed and epoch alone.

    Args:
        data: Training part.
        labels: (N, k) or (N, 0), row i for image i.
        recipe: For batch size and seed.
        device: Where images and labels go.
        in_memory: Bytes up to which the pixels are kept.
    """

    def __init__(
        self,
        data: Dataset,
        labels: Tensor,
        recipe: Recipe,
        device: torch.device,
        in_memory: int = IN_MEMORY,
    ) -> None:
        self.data, self.labels, self.device = data, labels, device
        self.batch, self.seed = recipe.batch, recipe.seed
        self.pinned = device.type == "cuda"
        size = len(data) * prod(data.shape)
        self.kept = next(data.blocks(len(data))) if size <= in_memory else None

    def __len__(self) -> int:
        return len(self.data) // self.batch

    def epoch(self, number: int, first: int = 0) -> Iterator[Rows]:
        """What this process sees in steps from `first` on."""
        shuffle = generator(self.seed, "order", number)
        order = torch.randperm(len(self.data), generator=shuffle)
        share = self.batch // distributed.world()
        own = distributed.rank() * share
        rows = [
            order[i * self.batch + own : i * self.batch + own + share]
            for i in range(first, len(self))
        ]
        for chosen, pixels in zip(rows, self._pixels(rows), strict=True):
            x = pixels.to(self.device, non_blocking=self.pinned)
            yield Rows(
                x.float().div_(self.data.levels),
                self.labels[chosen].to(self.device),
                chosen,
            )

    def _pixels(self, rows: list[Tensor]) -> Iterator[Tensor]:
        """Batches of uint8 pixels; streamed ones are read while the last is used."""
        if self.kept is None:
            return read(self.data, rows, pinned=self.pinned)
        return (self.kept[chosen] for chosen in rows)
