"""APGD for L1: sparse steps, exact projections, and radii that shrink to eps.

Source: Croce & Hein 2021, arXiv 2103.01208, algorithm 1 and section 4 (larger radii);
the details that the paper leaves open follow the authors' published implementation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robrep_eval.attacks.apgd_common import (
    averaged_gradient,
    flat_starts,
    keep_best,
    record,
)
from robrep_eval.attacks.losses import Loss
from robrep_eval.attacks.noise import Rows
from robrep_eval.attacks.pool import State, told
from robrep_eval.attacks.problem import Problem, fooled
from zoo.ball import project_l1

SPARSITY = 0.2
"""Share of coordinates moved at first, when there is no start to read it from."""
FEWER = 0.95
"""A support that shrank below this share resets the step."""


def stages(iterations: int, larger: bool) -> list[tuple[float, int]]:
    """(multiple of eps, iterations) of each stage."""
    if not larger:
        return [(1.0, iterations)]
    part = math.ceil(0.3 * iterations)
    return [(3.0, part), (2.0, part), (1.0, iterations - 2 * part)]


class ApgdL1:
    """The program of one restart or one target; see `robrep_eval.attacks.apgd.Apgd`.

    Args:
        problem: The examples.
        loss: What is increased.
        draws: Normal noise of each task.
        iterations: Steps over all stages.
        guard: Margin beyond which a fooled row retires, in the last stage only:
            success at a larger radius is none.
        classes: Number of logits.
        averaged: Passes per gradient (EoT).
        larger: Start at 3 eps and 2 eps.
    """

    clock = "iteration"
    lockstep = False

    def __init__(
        self,
        problem: Problem,
        loss: Loss,
        draws: Rows,
        *,
        iterations: int,
        guard: float,
        classes: int,
        averaged: int = 1,
        larger: bool = True,
    ) -> None:
        self.problem = problem
        self.loss = loss
        self.draws = draws
        self.classes = classes
        self.guard = guard if averaged == 1 else float("inf")
        self.averaged = averaged
        device = problem.x.device
        table = stages(iterations, larger)
        eps = problem.threat.eps
        self.larger = larger
        self.steps = iterations
        self.last = len(table) - 1
        self.radius = torch.tensor([share * eps for share, _ in table], device=device)
        self.length = torch.tensor([n for _, n in table], device=device)
        self.every = (self.length * 0.04).long().clamp(min=1)
        self.flat = 0
        self.fresh = True  # rows may be at their start

    def begin(self, tasks: Tensor) -> State:
        self.fresh = True
        x = self.problem.x[tasks]
        noise = self.draws(tasks).to(x)
        n, device = len(x), x.device
        start = x + project_l1(noise, x, float(self.radius[0]))
        dim = x[0].numel()
        state = {
            "task": tasks.to(device),
            "y": self.problem.y[tasks],
            "target": self.problem.target[tasks],
            "clean": x,
            "point": start.clamp(0, 1),
            "stage": torch.zeros(n, dtype=torch.int64, device=device),
            "image": x.clone(),
            "gaps": x.new_full((n, self.classes), float("inf")),
            "found": torch.zeros(n, dtype=torch.bool, device=device),
            "broken": torch.zeros(n, dtype=torch.bool, device=device),
            "best_point": start.clone(),
            "best_gradient": torch.zeros_like(x),
            "best_loss": x.new_full((n,), -float("inf")),
            "support": x.new_full((n,), float(dim)),
            "share": x.new_full((n,), SPARSITY),
            "size": x.new_zeros(n),
            "iteration": torch.zeros(n, dtype=torch.int64, device=device),
        }
        self._enter_stage(state, torch.ones(n, dtype=torch.bool, device=device))
        return state

    def step(self, state: State) -> Tensor | None:
        s = state
        logits, loss, gradient = averaged_gradient(
            self.problem, self.loss, s, self.averaged
        )
        wrong, retired, _ = fooled(logits, s["y"], self.guard)
        last = s["stage"] == self.last
        record(s, wrong & last, logits)
        finite = logits.isfinite().all(dim=1) & gradient.flatten(1).isfinite().all(1)
        s["broken"] |= ~finite
        first = s["iteration"] < 0
        if self.fresh:
            self.flat += flat_starts(gradient, first)
            self.fresh = False
        over = s["iteration"] == self.length[s["stage"]] - 1
        done = (last & (retired | over)) | ~finite
        moving, due = over & ~last, self._due(s, ~first & ~over)
        some, every, adapting, handing = told(
            done.any(), done.all(), due.any(), moving.any()
        )
        if every:
            return done
        keep_best(s, loss, gradient)
        if adapting:
            gradient = self._adapt(s, gradient, due)
        self._move(s, gradient)
        s["iteration"] += 1
        if handing:
            s["stage"] += moving
            self._hand_on(s, moving)
            self.fresh = True
        return done if some else None

    def _hand_on(self, s: State, moving: Tensor) -> None:
        """The point of highest loss starts the next stage, at its smaller radius."""
        rows = moving.nonzero().flatten()
        x, best = s["clean"][rows], s["best_point"][rows]
        radius = self.radius[s["stage"][rows]].view(-1, 1)
        s["point"][rows] = (x + project_l1(best - x, x, radius)).clamp_(0, 1)
        s["best_loss"][rows] = -float("inf")
        self._enter_stage(s, moving)

    def _enter_stage(self, s: State, entering: Tensor) -> None:
        if self.larger:  # sparsity as found, not as assumed
            support = _support(s["point"] - s["clean"])
            dim = s["clean"][0].numel()
            s["support"] = torch.where(entering, support, s["support"])
            s["share"] = torch.where(entering, support / dim / 1.5, s["share"])
        s["size"] = torch.where(entering, self.radius[s["stage"]], s["size"])
        s["iteration"] = torch.where(entering, -1, s["iteration"])

    def _due(self, s: State, running: Tensor) -> Tensor:
        """Every few iterations of a stage, bool (n,)."""
        return running & ((s["iteration"] + 1) % self.every[s["stage"]] == 0)

    def _adapt(self, s: State, gradient: Tensor, due: Tensor) -> Tensor:
        """A shrinking support restarts from the best point."""
        dim = s["clean"][0].numel()
        support = _support(s["best_point"] - s["clean"])
        fewer = due & (support / s["support"] < FEWER)
        radius = self.radius[s["stage"]]
        slower = torch.where(fewer, radius, s["size"] / 1.5)
        slower = torch.minimum(torch.maximum(slower, radius / 10), radius)
        s["size"] = torch.where(due, slower, s["size"])
        s["share"] = torch.where(due, support / dim / 1.5, s["share"])
        s["support"] = torch.where(due, support, s["support"])
        of_row = fewer.view(-1, 1, 1, 1)
        s["point"] = torch.where(of_row, s["best_point"], s["point"])
        return torch.where(of_row, s["best_gradient"], gradient)

    def _move(self, s: State, gradient: Tensor) -> None:
        """A step along the signs of the largest coordinates, evenly spread."""
        flat = gradient.flatten(1)
        dim = flat.shape[1]
        ranked = flat.abs().sort(dim=1).values
        at = ((1 - s["share"]) * dim).clamp(0, dim - 1).long()
        threshold = ranked.gather(1, at.unsqueeze(1))
        signs = flat.sign() * (flat.abs() >= threshold)
        count = signs.abs().sum(dim=1, keepdim=True) + 1e-10
        step = (s["size"].view(-1, 1) * signs / count).view_as(gradient)
        x = s["clean"]
        radius = self.radius[s["stage"]].view(-1, 1)
        s["point"] = x + project_l1(s["point"] + step - x, x, radius)


def _support(delta: Tensor) -> Tensor:
    """Number of non-zero coordinates of each row."""
    return (delta != 0).flatten(1).sum(dim=1).to(delta.dtype)
