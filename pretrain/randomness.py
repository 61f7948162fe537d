"""Randomness without state: every draw follows from seed, purpose and position.

A resumed run therefore needs no generator states to end with the same weights.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

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
