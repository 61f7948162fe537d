"""An attack that sees decisions alone, for up to a thousand queries an image.

No gradient, logit or loss can mislead it. It holds the smallest radius at which a
direction of signs leaves the class, and turns the signs of one block of pixels after
another, of ever smaller blocks; a turn that is wrong at that radius too is kept, and
its own smallest radius found by bisection.

Source: Chen & Gu 2020, arXiv 2006.12792, algorithms 1 to 3; the first directions are
here those towards images of other classes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

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


Question = tuple[Tensor, float]
"""A direction (C, H, W) of unit length, and how far along it."""
Search = Generator[Question, bool, None]
"""Of one image: is told of each point whether it is wrong."""


class Rays:
    """A search for each image; all that are open ask together.

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
        self.widest = float(lengths(torch.ones_like(x[:1]), threat.norm))
        self.ways = x.new_ones(x.shape) / self.widest
        """Of unit length, all signs."""
        self.radius = [float("inf")] * len(x)
        self.asked = [0] * len(x)

    def images(self, others: Tensor, labels: Tensor) -> Tensor:
        """The nearest point that was found, in the ball or not, (n, C, H, W).

        Args:
            others: Images (k, C, H, W) whose directions are tried first, for images
                of another label than ...
            labels: ... theirs (k,).
        """
        searches = [self._search(row, others, labels) for row in range(len(self.x))]
        asked = {row: next(search, None) for row, search in enumerate(searches)}
        while open_ := {row: point for row, point in asked.items() if point}:
            for row, wrong in zip(open_, self._answers(open_), strict=True):
                self.asked[row] += 1
                try:
                    asked[row] = searches[row].send(wrong)
                except StopIteration:
                    asked[row] = None
        rows = torch.arange(len(self.x))
        nearest = [min(radius, self.threat.eps) for radius in self.radius]
        return self._at(rows, self.ways, nearest)

    def _answers(self, questions: dict[int, Question]) -> list[bool]:
        """One for each row."""
        rows = torch.tensor(list(questions))
        ways, radii = zip(*questions.values(), strict=True)
        points = self._at(rows, torch.stack(ways), radii)
        answers: list[bool] = self.wrong(points, self.y[rows]).tolist()
        return answers

    def _at(self, rows: Tensor, ways: Tensor, radii: Sequence[float]) -> Tensor:
        """Points at that distance, or nearer where the box ends."""
        far = torch.tensor(radii).to(ways).view(-1, 1, 1, 1)
        return (self.x[rows] + far * ways).clamp(0, 1)

    def _search(self, row: int, others: Tensor, labels: Tensor) -> Search:
        """First the directions, then ever smaller blocks."""
        for other, label in zip(others[:OTHERS], labels[:OTHERS].tolist(), strict=True):
            if self._open(row) and label != int(self.y[row]):
                towards = torch.where(other >= self.x[row], 1.0, -1.0) / self.widest
                yield from self._try(row, towards)
        size = self.x[row].numel()
        blocks, block = 1, 0
        while self._open(row):
            width = -(-size // blocks)
            turned = self.ways[row].clone()
            turned.view(-1)[block * width : (block + 1) * width] *= -1
            yield from self._try(row, turned)
            block += 1
            if block * width >= size:
                blocks, block = min(2 * blocks, size), 0

    def _open(self, row: int) -> bool:
        """No point in the ball yet, and questions left."""
        asked, radius, eps = self.asked[row], self.radius[row], self.threat.eps
        hopeless = asked >= AT_FIRST and radius > NEAR * eps
        return radius > eps and asked < self.queries and not hopeless

    def _try(self, row: int, way: Tensor) -> Search:
        """Keeps a direction that is wrong nearer than the best so far."""
        low, high = 0.0, min(self.radius[row], self.widest)
        if not (yield way, high):
            return
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if (yield way, middle):
                high = middle
            else:
                low = middle
        self.ways[row], self.radius[row] = way, high
