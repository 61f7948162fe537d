"""Square attack in Linf, one query of each image in a pass or several.

Where few images are left, several successive squares of each are tried in one pass, as
if those before them had been rejected (speculation). The first that is accepted ends
the row's turn, and what came after it is forgotten: every square is still judged on the
image that it would have met one by one. Draws belong to example and query, so no
outcome changes but by the rounding of another batch.

Source: Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1 and 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robrep_eval.attacks.noise import Noise
from robrep_eval.attacks.pool import State, told
from robrep_eval.attacks.problem import Problem
from robrep_eval.attacks.square_queue import SquareQueue, areas_at_bounds
from zoo.margins import margin

TOGETHER = 16
"""Most squares of an image in one pass: 64 need twice the rows for half the passes."""
FILLED = {"cpu": 64}
OTHERWISE = 512
"""Rows up to which a pass is filled, by kind of device: below, it costs little less."""
ALL = slice(None)
Judged = tuple[Tensor, Tensor, Tensor]
"""Of each row the image judged last, its logits, and whether it is accepted."""


class SquareLinf:
    """The program of one run.

    Args:
        problem: The examples.
        noise: Start stripes, positions and signs.
        run: Number of the restart.
        queries: Most queries after the first.
        guard: Margin beyond which a fooled row retires; 0: at a tie already.
        rows: Most rows of a pass that speculation may fill; 0: no speculation.
    """

    clock = "query"
    lockstep = False

    def __init__(
        self,
        problem: Problem,
        noise: Noise,
        *,
        run: int,
        queries: int,
        guard: float,
        rows: int = 0,
    ) -> None:
        self.problem = problem
        self.filled = min(rows, FILLED.get(problem.x.device.type, OTHERWISE))
        self.guard = guard
        self.steps = queries
        _, channels, height, width = problem.x.shape
        self.stripes = noise.images("uniform", run, problem.ids, (channels, 1, width))
        self.queue = SquareQueue(problem, noise, run=run, queries=queries)
        device = problem.x.device
        self.rows = torch.arange(height, device=device)
        self.columns = torch.arange(width, device=device)
        self.fresh = True  # rows may be at their start, or of a run that was resumed

    def begin(self, tasks: Tensor) -> State:
        self.fresh = True
        x = self.problem.x[tasks]
        n, eps = len(x), self.problem.threat.eps
        stripes = (2 * self.stripes(tasks).to(x) - 1).sign()
        low, high = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
        start = (x + eps * stripes).clamp_(0, 1)
        return {
            "task": tasks.to(x.device),
            "y": self.problem.y[tasks],
            "low": low,
            "high": high,
            "image": start,
            "areas": areas_at_bounds(start, low, high),
            **self.queue.begin(tasks),
            "margin": x.new_full((n,), float("inf")),
            "query": torch.full((n,), -1, device=x.device),
            "found": torch.zeros(n, dtype=torch.bool, device=x.device),
            "broken": torch.zeros(n, dtype=torch.bool, device=x.device),
        }

    def step(self, state: State) -> Tensor | None:
        s = state
        if self.fresh and bool((s["query"] < 0).any()):
            return self._first(s)
        together = min(TOGETHER, self.filled // len(s["query"]))
        self.queue.ready(s, several=together > 1, unknown=self.fresh)
        self.fresh = False
        judged = self._several(s, together) if together > 1 else self._one(s)
        done = (s["margin"] <= -self.guard) | (s["query"] >= self.steps) | s["broken"]
        some, late, better = told(done.any(), self.queue.late(s).any(), judged[2].any())
        if better:
            self._keep(s, *judged)
        if late:
            self.queue.refresh(s)
        return done if some else None

    def _one(self, s: State) -> Judged:
        """The next square of each row."""
        place = self.queue.next(s)
        candidate = self._candidate(s, s["windows"][place], s["signs"][place])
        waiting = s["query"] < self.steps
        logits = self.problem.model.logits(candidate)
        accepted = self._judge(s, logits, waiting)
        self.queue.remember(s, place, accepted)
        s["query"] += 1
        return candidate, logits, accepted

    def _several(self, s: State, together: int) -> Judged:
        """The next squares of each row, up to the first that is accepted."""
        place, offset, passed = self.queue.upcoming(s, together)
        owner, _ = place
        if not len(owner):
            s["query"] += passed
            nothing = torch.zeros_like(s["found"])
            return s["image"], s["image"].flatten(1), nothing  # logits: none, not read
        candidate = self._candidate(s, s["windows"][place], s["signs"][place], owner)
        logits = self.problem.model.logits(candidate)
        new = margin(logits, s["y"][owner])
        event = (new < s["margin"][owner]) | (new <= 0)
        event |= ~logits.isfinite().all(dim=1)
        met, last = until_first(owner, event, len(s["query"]))
        tried, last = last >= 0, last.clamp(min=0)
        candidate, logits = candidate[last], logits[last]
        accepted = self._judge(s, logits, tried)
        self.queue.remember_all(s, place, met, tried, last, accepted)
        s["query"] += torch.where(tried, offset[last] + 1, passed)
        return candidate, logits, accepted

    def _first(self, s: State) -> Tensor:
        """The start of rows that just came in."""
        fresh = s["query"] < 0
        rows = fresh.nonzero().flatten()
        logits = self.problem.model.logits(s["image"][rows])
        s["margin"][rows] = margin(logits, s["y"][rows]).to(s["margin"])
        s["found"][rows] = logits.argmax(dim=1) != s["y"][rows]
        s["broken"][rows] = ~logits.isfinite().all(dim=1)
        s["query"] += fresh
        return fresh & ((s["margin"] <= -self.guard) | s["broken"])

    def _candidate(
        self, s: State, windows: Tensor, signs: Tensor, rows: Tensor | slice = ALL
    ) -> Tensor:
        """The images of the rows with their squares added, inside ball and box."""
        top, left, side = windows.unsqueeze(2).unbind(dim=1)  # (n, 1)
        down = ((self.rows >= top) & (self.rows < top + side)).to(signs)
        across = ((self.columns >= left) & (self.columns < left + side)).to(signs)
        step = (signs * (2 * self.problem.threat.eps)).view(*signs.shape, 1, 1)
        bands = step * down.view(len(down), 1, -1, 1)  # (n, C, H, 1)
        moved = (bands * across.view(len(across), 1, 1, -1)).add_(s["image"][rows])
        return torch.clamp(moved, s["low"][rows], s["high"][rows], out=moved)

    def _judge(self, s: State, logits: Tensor, tried: Tensor) -> Tensor:
        """A lower margin, or a misclassification, is accepted; bool (n,) where so."""
        new = margin(logits, s["y"]).to(s["margin"])
        s["broken"] |= ~logits.isfinite().all(dim=1) & tried
        better = tried & ((new < s["margin"]) | (new <= 0)) & ~s["broken"]
        s["margin"] = torch.where(better, new, s["margin"])
        return better

    def _keep(
        self, s: State, candidate: Tensor, logits: Tensor, better: Tensor
    ) -> None:
        """What was accepted is the row's image now."""
        wrong = logits.argmax(dim=1) != s["y"]
        s["found"] = torch.where(better, wrong, s["found"])
        s["image"] = torch.where(better.view(-1, 1, 1, 1), candidate, s["image"])
        areas = areas_at_bounds(s["image"], s["low"], s["high"])
        s["areas"] = torch.where(better.unsqueeze(1), areas, s["areas"])


def until_first(owner: Tensor, event: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Which trials come no later than the first event of their owner.

    Args:
        owner: Of each trial, in the order in which it makes them (k,).
        event: Bool (k,).
        n: Owners.

    Returns:
        Bool (k,); and the number of the last such trial of each owner (n,), -1: none.
    """
    trial = torch.arange(len(owner), device=owner.device)
    first = torch.full((n,), len(owner), device=owner.device)
    none = torch.full_like(trial, len(owner))
    first = first.scatter_reduce(0, owner, torch.where(event, trial, none), "amin")
    met = trial <= first[owner]
    last = torch.full_like(first, -1)
    known = torch.where(met, trial, torch.full_like(trial, -1))
    return met, last.scatter_reduce(0, owner, known, "amax")
