"""Square attack in Linf: random squares, kept when they lower the margin.

Two kinds of queries are passed over without a forward pass, since they cannot change
anything: those that would change no pixel of an image (all of the square already lies
on that side of the ball; integral images of the pixels on either side tell which), and
those that would repeat a square that the same image has rejected before.

Where few images are left, several successive squares of each are tried in one pass, as
if those before them had been rejected (speculation). The first that is accepted ends
the row's turn, and what came after it is forgotten: every square is still judged on the
image that it would have met one by one. Draws belong to example and query, so no
outcome changes but by the rounding of another batch.

Source: Andriushchenko et al. 2020, arXiv 1912.00049, algorithms 1 and 2.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.noise import Noise
from robrep_eval.attacks.pool import Program, State
from robrep_eval.attacks.problem import Problem
from robrep_eval.attacks.square_schedule import sides
from robrep_eval.attacks.square_windows import SquareWindows
from robrep_eval.attacks.turn import Turn
from zoo.margins import margin

LOOK_AHEAD = (8, 32, 128)
"""Queries examined at once for one that may change anything: at first, then, later."""
BLOCK = 256
"""Queries drawn at once."""
TOGETHER = 16
"""Most squares of an image in one pass: 64 need twice the rows for half the passes."""
FILLED = {"cpu": 64}
OTHERWISE = 512
"""Rows up to which a pass is filled, by kind of device: below, it costs little less."""
MEMORY = 2**15
"""Most different squares of one side, signs included, that an example remembers."""
ALL = slice(None)
JUDGED = ("y", "low", "high", "image", "areas", "margin", "found", "broken")
"""Columns that decide whether a square is accepted, and change if it is."""


@dataclass(frozen=True, kw_only=True)
class SquareAttack(EngineAttack):
    """Square in any norm; see `robrep_eval.attacks.base.Attack`."""

    steps: int = 5000
    """Queries."""
    speculation: bool = True
    """Off: one square of each image in a pass. No part of the record."""
    gradients: ClassVar[bool] = False

    def program(self, turn: Turn) -> Program:
        problem, noise, run = turn.problem, turn.noise, turn.runs[0]
        if problem.threat.norm == "Linf":
            exact = self.randomness == "official-rng"
            return SquareLinf(
                problem,
                noise,
                run=run,
                queries=self.steps,
                guard=turn.guard,
                rows=0 if exact or not self.speculation else turn.batch_size,
            )
        return SquareWindows(
            problem,
            noise,
            run=run,
            queries=self.steps,
            guard=turn.guard,
            batch_size=turn.batch_size,
        )


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
        self.squares = noise.steps(run, problem.ids, queries, 2 + channels)
        device = problem.x.device
        self.sides = torch.tensor(sides(queries, height, width, 1), device=device)
        self.rows = torch.arange(height, device=device)
        self.columns = torch.arange(width, device=device)
        self.ahead = [torch.arange(count, device=device) for count in LOOK_AHEAD]
        squares = height * width * 2**channels
        self.memory = squares if squares <= MEMORY else 0

    def begin(self, tasks: Tensor) -> State:
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
            "areas": _areas(start, low, high),
            "rejected": torch.zeros(
                n, self.memory + 1, dtype=torch.bool, device=x.device
            ),
            "rejected_side": torch.zeros(n, dtype=torch.int64, device=x.device),
            **self._block(tasks, torch.zeros(n, dtype=torch.int64, device=x.device)),
            "margin": x.new_full((n,), float("inf")),
            "query": torch.full((n,), -1, device=x.device),
            "found": torch.zeros(n, dtype=torch.bool, device=x.device),
            "broken": torch.zeros(n, dtype=torch.bool, device=x.device),
        }

    def step(self, state: State) -> Tensor:
        s = state
        if bool((s["query"] < 0).any()):
            return self._first(s)
        place = self._next(s)
        together = min(TOGETHER, self.filled // len(s["query"]))
        if together > 1:
            self._several(s, together)
        else:
            self._one(s, place)
        return (s["margin"] <= -self.guard) | (s["query"] >= self.steps) | s["broken"]

    def _one(self, s: State, place: tuple[Tensor, Tensor]) -> None:
        """The next square of each row."""
        candidate = self._candidate(s, s["windows"][place], s["signs"][place])
        waiting = s["query"] < self.steps
        logits = self.problem.model.logits(candidate)
        accepted = self._accept(s, candidate, logits, waiting)
        self._remember(s, place, accepted)
        s["query"] += 1

    def _several(self, s: State, together: int) -> None:
        """The next squares of each row, up to the first that is accepted."""
        n, ahead = len(s["query"]), self.ahead[-1]
        waiting = (s["query"] < self.steps).nonzero().flatten()
        if not len(waiting):
            return
        self._refresh(s, waiting, len(ahead))
        at = ((s["query"] - s["block"]).unsqueeze(1) + ahead).clamp(max=BLOCK - 1)
        open_ = s["query"].unsqueeze(1) + ahead < self.steps
        open_ &= ~self._idle(s, torch.arange(n, device=at.device), at)
        rank = open_.cumsum(dim=1)
        owner, offset = (open_ & (rank <= together)).nonzero(as_tuple=True)
        place = owner, at[owner, offset]
        candidate = self._candidate(s, s["windows"][place], s["signs"][place], owner)
        logits = self.problem.model.logits(candidate)
        new = margin(logits, s["y"][owner])
        event = (new < s["margin"][owner]) | (new <= 0)
        event |= ~logits.isfinite().all(dim=1)
        met, last = until_first(owner, event, n)
        rows = (last >= 0).nonzero().flatten()
        last = last[rows]
        accepted = torch.zeros(n, dtype=torch.bool, device=owner.device)
        part = {key: s[key][rows] for key in JUDGED}
        accepted[rows] = self._accept(
            part, candidate[last], logits[last], torch.ones_like(rows, dtype=torch.bool)
        )
        for key in JUDGED:
            s[key][rows] = part[key]
        self._remember_all(s, place, met, rows, last, accepted)
        s["query"][rows] += offset[last] + 1

    def _remember_all(
        self,
        s: State,
        place: tuple[Tensor, Tensor],
        met: Tensor,
        rows: Tensor,
        last: Tensor,
        accepted: Tensor,
    ) -> None:
        """Notes the rejected squares of the side that was tried last."""
        if not self.memory:
            return
        side = s["windows"][..., 2][place]
        latest = s["rejected_side"].clone()
        latest[rows] = side[last]
        stale = (accepted | (latest != s["rejected_side"])).nonzero().flatten()
        s["rejected"][stale] = False
        s["rejected_side"] = latest
        squares, owner = s["square"][place], place[0]
        known = met & ~accepted[owner] & (side == latest[owner])
        known &= squares < self.memory
        s["rejected"][owner[known], squares[known]] = True

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

    def _next(self, s: State) -> tuple[Tensor, Tensor]:
        """Moves each row's query to its next square that may change anything.

        Returns the rows and the squares' places in their blocks, (n,) each.
        """
        rows = (s["query"] < self.steps).nonzero().flatten()
        for ahead in itertools.chain(self.ahead, itertools.repeat(self.ahead[-1])):
            if not len(rows):
                break
            self._refresh(s, rows, len(ahead))
            at = (s["query"] - s["block"])[rows].unsqueeze(1) + ahead  # (r, A)
            idle = self._idle(s, rows, at)
            idle &= s["query"][rows].unsqueeze(1) + ahead < self.steps
            skipped = idle.long().cumprod(dim=1).sum(dim=1)
            s["query"][rows] += skipped
            again = (skipped == len(ahead)) & (s["query"][rows] < self.steps)
            rows = rows[again]
        place = (s["query"] - s["block"]).clamp(0, BLOCK - 1)
        return torch.arange(len(place), device=place.device), place

    def _refresh(self, s: State, rows: Tensor, ahead: int) -> None:
        """Draws the next blocks when a row is near the end of its own.

        Rows past the middle of theirs join in: fewer and larger draws.
        """
        used = (s["query"] - s["block"])[rows]
        if bool((used + ahead > BLOCK).any()):
            late = rows[used > BLOCK // 2]
            for key, column in self._block(s["task"][late], s["query"][late]).items():
                s[key][late] = column

    def _block(self, tasks: Tensor, first: Tensor) -> State:
        """Squares of the `BLOCK` queries from `first` on, (n, BLOCK, ...) each.

        "corners" are the places in "areas" that tell whether a square changes a
        pixel: four for each channel, on the side of the ball that its sign points to.
        "square" numbers the squares of one side with their signs, for the memory.
        """
        n, channels, height, width = len(tasks), *self.problem.x.shape[1:]
        query = first.unsqueeze(1) + torch.arange(BLOCK, device=first.device)
        known = query.clamp(max=self.steps - 1)
        owner = tasks.to(first.device).unsqueeze(1).expand_as(query)
        draws = self.squares(owner.flatten(), known.flatten()).to(self.problem.x)
        draws = draws.view(n, BLOCK, -1)
        side = self.sides[known]
        top = (draws[..., 0] * (height - side)).long()
        left = (draws[..., 1] * (width - side)).long()
        signs = (2 * draws[..., 2:] - 1).sign()
        plane = (signs > 0) * channels + torch.arange(channels, device=first.device)
        rows = torch.stack([top + side, top, top + side, top], dim=2)
        columns = torch.stack([left + side, left + side, left, left], dim=2)
        inside = (rows * (width + 1) + columns).unsqueeze(2)  # (n, B, 1, 4)
        corners = plane.unsqueeze(3) * ((height + 1) * (width + 1)) + inside
        bits = 2 ** torch.arange(channels, device=first.device)
        square = (top * width + left) * 2**channels + ((signs > 0) * bits).sum(dim=2)
        square[(signs == 0).any(dim=2) | (not self.memory)] = self.memory  # no memory
        return {
            "block": first.clone(),
            "windows": torch.stack([top, left, side], dim=2),
            "signs": signs,
            "corners": corners.flatten(2),
            "square": square,
        }

    def _idle(self, s: State, rows: Tensor, at: Tensor) -> Tensor:
        """Bool (r, A): the square changes no pixel, or was rejected before."""
        column = rows.unsqueeze(1)
        corners = s["corners"][column, at]  # (r, A, 4 C)
        sums = s["areas"][column.unsqueeze(2), corners]
        a, b, c, d = sums.view(*at.shape, -1, 4).unbind(dim=3)
        side = s["windows"][column, at, 2]
        still = (a - b - c + d == side.square().unsqueeze(2)).all(dim=2)
        if not self.memory:
            return still
        known = s["rejected"][column, s["square"][column, at]]
        return still | (known & (side == s["rejected_side"][column]))

    def _remember(
        self, s: State, place: tuple[Tensor, Tensor], accepted: Tensor
    ) -> None:
        """Notes the rejected squares; another image or side forgets them."""
        if not self.memory:
            return
        side = s["windows"][..., 2][place]
        stale = (accepted | (side != s["rejected_side"])).nonzero().flatten()
        s["rejected"][stale] = False
        s["rejected_side"] = side
        squares = s["square"][place]
        s["rejected"][place[0], squares] = ~accepted & (squares < self.memory)

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

    def _accept(
        self, s: State, candidate: Tensor, logits: Tensor, waiting: Tensor
    ) -> Tensor:
        """A lower margin, or a misclassification, is kept; bool (n,) where it was."""
        new = margin(logits, s["y"])
        s["broken"] |= ~logits.isfinite().all(dim=1) & waiting
        better = waiting & ((new < s["margin"]) | (new <= 0)) & ~s["broken"]
        rows = better.nonzero().flatten()
        if not len(rows):
            return better
        image = candidate[rows]
        s["margin"][rows] = new[rows].to(s["margin"])
        s["image"][rows] = image
        s["areas"][rows] = _areas(image, s["low"][rows], s["high"][rows])
        s["found"][rows] = (logits.argmax(dim=1) != s["y"])[rows]
        return better


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
    first = first.scatter_reduce(0, owner[event], trial[event], "amin")
    met = trial <= first[owner]
    last = torch.full_like(first, -1)
    return met, last.scatter_reduce(0, owner[met], trial[met], "amax")


def _areas(image: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Integral images (n, 2 * C * (H + 1) * (W + 1)) of the pixels at either bound.

    Each entry counts the pixels above and to the left of it; first those at the lower
    bound, channel by channel, then those at the upper.
    """
    bound = torch.cat([image == low, image == high], dim=1)
    sums = bound.cumsum(dim=2, dtype=torch.int32).cumsum(dim=3, dtype=torch.int32)
    return F.pad(sums, (1, 0, 1, 0)).flatten(1)
