"""Randomness without state: every draw follows from seed, purpose and position.

A resumed run therefore needs no generator states to end with the same weights; and what
is drawn for an image is the same in any number of processes.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from robrep_eval.attacks.noise import Kind, PerExample

_PURPOSES = {
    "weights": 0,
    "split": 1,
    "order": 2,
    "step": 3,
    "labels": 4,
    "monitor": 5,
    "stable": 6,
    "norms": 7,
}
Purpose = Literal[
    "weights", "split", "order", "step", "labels", "monitor", "stable", "norms"
]


def generator(seed: int, purpose: Purpose, *position: int) -> torch.Generator:
    """A CPU generator whose state depends on nothing but the arguments."""
    entropy = [seed, _PURPOSES[purpose], *position]
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class ImageGenerator:
    """Draws that each image has for itself: they do not depend on what else is drawn.

    The n-th call draws the same for an image whichever images stand beside it, on
    whichever process and device (normal draws but for rounding).

    Args:
        seed: Of the run.
        purpose: What is drawn for.
        epoch: In which each image is drawn for once.
        images: Numbers (N,) of the images in their set, on the CPU.
        device: Where draws are made.

    Source: `robrep_eval.attacks.noise.PerExample`.
    """

    def __init__(
        self,
        seed: int,
        purpose: Purpose,
        epoch: int,
        images: Tensor,
        device: torch.device | str = "cpu",
    ) -> None:
        self.noise = PerExample(seed, f"pretrain {purpose}")
        self.images, self.device = images, torch.device(device)
        self.calls = epoch << 32

    def uniform(self, *shape: int) -> Tensor:
        """float32 in [0, 1), in steps of 2^-24.

        Args:
            shape: (k N, ...): rows i, N + i, 2 N + i, ... are of image i.
        """
        return self._draw("uniform", shape)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32; otherwise as `uniform`."""
        return self._draw("normal", shape)

    def _draw(self, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        n, one = len(self.images), shape[1:]
        if shape[0] % n:
            raise ValueError(f"{shape[0]} rows are not of {n} images")
        together = max(1, TOGETHER // max(1, prod(one)))
        tasks = torch.arange(n, device=self.device).split(together)
        parts: list[Tensor] = []
        for _ in range(shape[0] // n):
            rows = self.noise.images(kind, self.calls, self.images, one)
            parts += map(rows, tasks)
            self.calls += 1
        return torch.cat(parts)


Generator = torch.Generator | ImageGenerator
"""Of draws for a step as a whole, or for each of its images."""
TOGETHER = 1 << 18
"""Draws made at once; those of a whole batch of photographs would take gigabytes."""
