"""An attack that sees decisions alone, for up to a thousand queries an image.

No gradient, logit or loss can mislead it. It holds the smallest radius at which a
direction of signs leaves the class, and turns the signs of one block of pixels after
another, of ever smaller blocks; a turn that is wrong at that radius too is kept, and
its own smallest radius found by bisection.

Source: Chen & Gu 2020, arXiv 2006.12792, algorithms 1 to 3; the first directions are
here those towards images of other classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.ball import lengths
from zoo.threat import ThreatModel

BISECTIONS = 6
AT_FIRST, NEAR = 300, 1.5
"""After so many questions an image gets no more unless it is within so many radii."""
OTHERS = 8
"""Images of other classes that lend a first direction."""

Decide = Callable[[Tensor, Tensor], Tensor]
"""Images (k, C, H, W) and their labels (k,) to bool (k,): misclassified."""


class Rays:
    """The search for all images at once.

    Args:
        wrong: What is asked.
        x: Clean images (n, C, H, W), correct.
        y: Labels (n,).
        threat: Norm and radius.
        queries: Most questions for one image.
    """

    def __init__(
        self, wrong: Decide, x: Tensor, y: Tensor, threat: ThreatModel, queries: int
    ) -> None:
        self.wrong = wrong
        self.x, self.y, self.threat, self.queries = x, y, threat, queries
        self.signs = torch.ones_like(x)
        full = torch.ones_like(x[:1])
        everywhere = float(lengths(full, threat.norm))
        self.widest = everywhere
        self.radius = x.new_full((len(x),), torch.inf)
        self.asked = torch.zeros(len(x), dtype=torch.int64)

    def images(self, others: Tensor, labels: Tensor) -> Tensor:
        """The nearest point that was found, in the ball or not, (n, C, H, W).

        Args:
            others: Images (k, C, H, W) whose directions are tried first, for images
                of another label than ...
            labels: ... theirs (k,).
        """
        for other, label in zip(others[:OTHERS], labels[:OTHERS], strict=True):
            towards = torch.where(other >= self.x, 1.0, -1.0)
            self._try(towards, self._open() & (self.y != label))
        size = self.x[0].numel()
        blocks, block = 1, 0
        while bool(self._open().any()):
            width = -(-size // blocks)
            turned = self.signs.flatten(1).clone()
            turned[:, block * width : (block + 1) * width] *= -1
            self._try(turned.view_as(self.x), self._open())
            block += 1
            if block * width >= size:
                blocks, block = min(2 * blocks, size), 0
        return self._at(self.signs, self.radius.clamp(max=self.threat.eps))

    def _open(self) -> Tensor:
        """Bool (n,): no point in the ball yet, and questions left."""
        hopeless = (self.asked >= AT_FIRST) & (self.radius > NEAR * self.threat.eps)
        open_ = (self.radius > self.threat.eps) & (self.asked < self.queries)
        return open_ & ~hopeless

    def _at(self, signs: Tensor, radius: Tensor) -> Tensor:
        """The point at that distance, or nearer where the box ends."""
        unit = signs / lengths(signs, self.threat.norm).view(-1, 1, 1, 1)
        return (self.x + radius.view(-1, 1, 1, 1) * unit).clamp(0, 1)

    def _ask(self, signs: Tensor, radius: Tensor, rows: Tensor) -> Tensor:
        """Bool (n,): wrong at that point; False where not asked."""
        answer = torch.zeros(len(self.x), dtype=torch.bool)
        at = rows.nonzero().flatten()
        if len(at):
            answer[at] = self.wrong(self._at(signs, radius)[at], self.y[at])
            self.asked[at] += 1
        return answer

    def _try(self, signs: Tensor, rows: Tensor) -> None:
        """Keeps the directions that are wrong nearer than the best so far."""
        high = self.radius.clamp(max=self.widest)
        better = self._ask(signs, high, rows)
        if not bool(better.any()):
            return
        low = torch.zeros_like(high)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            hit = self._ask(signs, middle, better)
            high = torch.where(better & hit, middle, high)
            low = torch.where(better & ~hit, middle, low)
        self.signs[better] = signs[better]
        self.radius[better] = high[better]
