"""Square attack in Linf: random squares, kept when they lower the margin.

Queries that would change no pixel of an image (all of the square already lies on that
side of the ball) are passed over without a forward pass: they cannot change anything.

Source: Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1 and 2, with the
schedule that AutoAttack (arXiv 2003.01690) uses for 5000 queries.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robrep_eval.attacks.losses import margin
from robrep_eval.attacks.noise import Noise
from robrep_eval.attacks.pool import State
from robrep_eval.attacks.problem import Problem

P_INIT = 0.8
_SCHEDULE = ((10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64))
"""(last query, divisor of P_INIT); not rescaled to the number of queries."""


def share_of_pixels(query: int) -> float:
    """p: the share of pixels that the square of a query covers."""
    for last, divisor in _SCHEDULE:
        if query <= last:
            return P_INIT / divisor
    return P_INIT / (128 if query <= 6000 else 256 if query <= 8000 else 512)


def sides(queries: int, height: int, width: int, smallest: int) -> list[int]:
    """Side of the square of each query; made odd if it must be at least 3."""
    found = []
    for query in range(queries):
        side = round(math.sqrt(share_of_pixels(query) * height * width))
        side = max(side, smallest)
        if smallest == 3 and side % 2 == 0:
            side += 1
        found.append(min(side, height, width))
    return found


class SquareLinf:
    """The program of one run.

    Args:
        problem: The examples.
        noise: Start stripes, positions and signs.
        run: Number of the restart.
        queries: Most queries after the first.
        guard: Margin beyond which a fooled row retires; 0: at a tie already.
    """

    lockstep = False

    def __init__(
        self, problem: Problem, noise: Noise, *, run: int, queries: int, guard: float
    ) -> None:
        self.problem = problem
        self.guard = guard
        self.queries = queries
        _, channels, height, width = problem.x.shape
        self.stripes = noise.images("uniform", run, problem.ids, (channels, 1, width))
        self.squares = noise.steps(run, problem.ids, queries, 2 + channels)
        device = problem.x.device
        self.sides = torch.tensor(sides(queries, height, width, 1), device=device)
        self.rows = torch.arange(height, device=device)
        self.columns = torch.arange(width, device=device)

    def begin(self, tasks: Tensor) -> State:
        x = self.problem.x[tasks]
        n, eps = len(x), self.problem.threat.eps
        stripes = (2 * self.stripes(tasks).to(x) - 1).sign()
        start = (x + eps * stripes).clamp_(0, 1)
        return {
            "task": tasks.to(x.device),
            "y": self.problem.y[tasks],
            "low": (x - eps).clamp_(min=0),
            "high": (x + eps).clamp_(max=1),
            "image": start,
            "margin": x.new_full((n,), float("inf")),
            "query": torch.full((n,), -1, device=x.device),
            "found": torch.zeros(n, dtype=torch.bool, device=x.device),
            "broken": torch.zeros(n, dtype=torch.bool, device=x.device),
        }

    def step(self, state: State) -> Tensor:
        s = state
        if bool((s["query"] < 0).any()):
            return self._first(s)
        candidate = self._propose(s)
        waiting = s["query"] < self.queries
        logits = self.problem.model.logits(candidate)
        self._accept(s, candidate, logits, waiting)
        s["query"] += 1
        return (s["margin"] <= -self.guard) | (s["query"] >= self.queries) | s["broken"]

    def _first(self, s: State) -> Tensor:
        """The start of rows that just came in."""
        fresh = s["query"] < 0
        rows = fresh.nonzero().flatten()
        logits = self.problem.model.logits(s["image"][rows])
        s["margin"][rows] = margin(logits, s["y"][rows])
        s["found"][rows] = logits.argmax(dim=1) != s["y"][rows]
        s["broken"][rows] = ~logits.isfinite().all(dim=1)
        s["query"] += fresh
        return fresh & ((s["margin"] <= -self.guard) | s["broken"])

    def _propose(self, s: State) -> Tensor:
        """The next candidate of each row that differs from what the row has."""
        candidate = self._draw(s, s["task"], s["query"], slice(None))
        same = (candidate == s["image"]).flatten(1).all(dim=1)
        rows = same.nonzero().flatten()
        while len(rows):
            s["query"][rows] += 1
            rows = rows[s["query"][rows] < self.queries]
            again = self._draw(s, s["task"][rows], s["query"][rows], rows)
            candidate[rows] = again
            same = (again == s["image"][rows]).flatten(1).all(dim=1)
            rows = rows[same]
        return candidate

    def _draw(
        self, s: State, task: Tensor, query: Tensor, rows: Tensor | slice
    ) -> Tensor:
        image = s["image"][rows]
        draws = self.squares(task, query).to(image)
        side = self.sides[query]
        height, width = image.shape[-2:]
        top = (draws[:, 0] * (height - side)).long().unsqueeze(1)
        left = (draws[:, 1] * (width - side)).long().unsqueeze(1)
        end = side.unsqueeze(1)
        down = (self.rows >= top) & (self.rows < top + end)
        across = (self.columns >= left) & (self.columns < left + end)
        window = down.unsqueeze(2) & across.unsqueeze(1)  # (n, H, W)
        signs = (2 * draws[:, 2:] - 1).sign() * (2 * self.problem.threat.eps)
        change = signs.view(*signs.shape, 1, 1) * window.unsqueeze(1)
        moved = change.add_(image)
        return torch.clamp(moved, s["low"][rows], s["high"][rows], out=moved)

    def _accept(
        self, s: State, candidate: Tensor, logits: Tensor, waiting: Tensor
    ) -> None:
        """A lower margin, or a misclassification, is kept."""
        new = margin(logits, s["y"])
        s["broken"] |= ~logits.isfinite().all(dim=1) & waiting
        better = waiting & ((new < s["margin"]) | (new <= 0)) & ~s["broken"]
        rows = better.nonzero().flatten()
        s["margin"][rows] = new[rows]
        s["image"][rows] = candidate[rows]
        s["found"][rows] = (logits.argmax(dim=1) != s["y"])[rows]
