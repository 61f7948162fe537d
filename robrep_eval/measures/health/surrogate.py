"""Copies of a classifier whose gradients are their own, to transfer attacks from.

A smoothed copy averages its logits over noise, so that a decoy or a staircase finer
than the noise has no say in its gradient. A distilled copy is a small network that
learned the classifier's decisions alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.ball import random_start
from zoo.threat import ThreatModel

DRAWS = 4
"""Of noise in each pass of the smoothed copy."""
SIDE = 32
"""The distilled copy looks at no more pixels a side."""
WIDTH = 128
LEARNING_STEPS = 300
BATCH = 128


def smoothed(
    classifier: Callable[[Tensor], Tensor],
    threat: ThreatModel,
    generator: torch.Generator,
) -> Callable[[Tensor], Tensor]:
    """Mean logits over other points of the ball around each image, drawn anew."""

    def logits(x: Tensor) -> Tensor:
        offset = random_start(torch.full_like(x, 0.5), threat, generator) - 0.5
        total = classifier((x + offset).clamp(0, 1))
        for _ in range(DRAWS - 1):
            offset = random_start(torch.full_like(x, 0.5), threat, generator) - 0.5
            total = total + classifier((x + offset).clamp(0, 1))
        return total / DRAWS

    return logits


def distilled(
    x: Tensor,
    decisions: Tensor,
    classes: int,
    threat: ThreatModel,
    generator: torch.Generator,
) -> nn.Module:
    """A small network that answers as the classifier did.

    Args:
        x: Images (n, C, H, W), on the CPU, clean and moved.
        decisions: The classifier's classes (n,).
        classes: How many there are.
        threat: Images are moved inside it while it learns.
        generator: Of its weights, batches and moves.
    """
    _, channels, height, width = x.shape
    side = (min(height, SIDE), min(width, SIDE))
    student = nn.Sequential(
        nn.AdaptiveAvgPool2d(side),
        nn.Flatten(),
        nn.Linear(channels * side[0] * side[1], WIDTH),
        nn.GELU(),
        nn.Linear(WIDTH, classes),
    )
    with torch.no_grad():
        for weight in student.parameters():
            bound = weight.shape[-1] ** -0.5
            weight.uniform_(-bound, bound, generator=generator)
    optimiser = torch.optim.Adam(student.parameters(), lr=3e-3, weight_decay=1e-4)
    with torch.enable_grad():
        for _ in range(LEARNING_STEPS):
            rows = torch.randint(len(x), (min(BATCH, len(x)),), generator=generator)
            moved = random_start(x[rows], threat, generator)
            optimiser.zero_grad()
            F.cross_entropy(student(moved), decisions[rows]).backward()
            optimiser.step()
    return student.eval().requires_grad_(False)
