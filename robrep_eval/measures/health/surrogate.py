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
        centre = torch.full_like(x, 0.5)
        offsets = [
            random_start(centre, threat, generator) - centre for _ in range(DRAWS)
        ]
        points = torch.cat([(x + offset).clamp(0, 1) for offset in offsets])
        found: Tensor = classifier(points).unflatten(0, (DRAWS, len(x)))
        return found.mean(dim=0)

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
    adam = _Adam(list(student.parameters()))
    with torch.enable_grad():
        for _ in range(LEARNING_STEPS):
            rows = torch.randint(len(x), (min(BATCH, len(x)),), generator=generator)
            moved = random_start(x[rows], threat, generator)
            adam.step(F.cross_entropy(student(moved), decisions[rows]))
    return student.eval().requires_grad_(False)


class _Adam:
    """Kingma & Ba 2015, arXiv 1412.6980, algorithm 1.

    That of `torch.optim` imports a compiler first, which takes longer than all else
    that is done to a small model.
    """

    RATE, DECAYS, LEAST, SHRINK = 3e-3, (0.9, 0.999), 1e-8, 1e-4

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights, self.steps = weights, 0
        self.moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]

    def step(self, loss: Tensor) -> None:
        """One step down the gradient of the loss and of half the squared weights."""
        self.steps += 1
        gradients = torch.autograd.grad(loss, self.weights)
        unbiased = [1 - decay**self.steps for decay in self.DECAYS]
        with torch.no_grad():
            for weight, gradient, (mean, square) in zip(
                self.weights, gradients, self.moments, strict=True
            ):
                slope = gradient + self.SHRINK * weight
                mean.lerp_(slope, 1 - self.DECAYS[0])
                square.lerp_(slope.square(), 1 - self.DECAYS[1])
                size = (square / unbiased[1]).sqrt_().add_(self.LEAST)
                weight.addcdiv_(mean, size, value=-self.RATE / unbiased[0])
