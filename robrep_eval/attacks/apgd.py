"""APGD: projected ascent with momentum and a step size that halves by itself.

For Linf and L2; the L1 variant is in `apgd_l1`. Every quantity belongs to one row, so
rows at different iterations share a batch.

Source: Croce & Hein 2020, arXiv 2003.01690, algorithm 1; the details that the paper
leaves open follow the authors' published implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robrep_eval.attacks.losses import Loss
from robrep_eval.attacks.noise import Rows
from robrep_eval.attacks.pool import State
from robrep_eval.attacks.problem import Problem, fooled
from zoo.ball import lengths

MOMENTUM = 0.75
RISES = 0.75
"""Share of rising losses in a window below which the step is halved."""
_TINY = 1e-12  # added to norms before division


def checkpoints(iterations: int) -> tuple[Tensor, Tensor]:
    """Whether an iteration ends a window, and how long that window is; (n,) each."""
    window = max(int(0.22 * iterations), 1)
    shortest = max(int(0.06 * iterations), 1)
    shrink = max(int(0.03 * iterations), 1)
    ends = torch.zeros(iterations, dtype=torch.bool)
    lengths_ = torch.zeros(iterations, dtype=torch.float32)
    at = window - 1
    while at < iterations:
        ends[at], lengths_[at] = True, window
        window = max(window - shrink, shortest)
        at += window
    return ends, lengths_


class Apgd:
    """The program of one restart or one target.

    Args:
        problem: The examples.
        loss: What is increased.
        draws: Start noise of each task: uniform for Linf, normal for L2.
        iterations: Steps; each is one forward and one backward pass.
        guard: Margin beyond which a fooled row retires; infinity: never.
        averaged: Passes per gradient (EoT); with more than one, no row retires
            early, as a stochastic model's verdict on one pass is noise.
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
        averaged: int = 1,
    ) -> None:
        self.problem = problem
        self.loss = loss
        self.draws = draws
        self.steps = iterations
        self.guard = guard if averaged == 1 else float("inf")
        self.averaged = averaged
        device = problem.x.device
        self.ends, self.windows = (t.to(device) for t in checkpoints(iterations))
        self.flat = 0  # rows whose gradient at the start was exactly zero

    def begin(self, tasks: Tensor) -> State:
        x = self.problem.x[tasks]
        start = self._start(x, self.draws(tasks).to(x))
        n, eps = len(x), self.problem.threat.eps
        ball = {"clean": x}
        if self.problem.threat.norm == "Linf":
            ball = {"low": (x - eps).clamp_(min=0), "high": (x + eps).clamp_(max=1)}
        return {
            "task": tasks.to(x.device),
            "y": self.problem.y[tasks],
            "target": self.problem.target[tasks],
            **ball,
            "point": start,
            "previous": start.clone(),
            "best_point": start.clone(),
            "best_gradient": torch.zeros_like(x),
            "best_loss": x.new_full((n,), -float("inf")),
            "last_loss": x.new_zeros(n),
            "since": x.new_zeros(n),
            "rises": x.new_zeros(n),
            "halved": torch.ones(n, dtype=torch.bool, device=x.device),
            "size": x.new_full((n,), 2 * eps),
            "iteration": torch.full((n,), -1, device=x.device),
            "image": x.clone(),
            "gap": x.new_full((n,), float("inf")),
            "found": torch.zeros(n, dtype=torch.bool, device=x.device),
            "broken": torch.zeros(n, dtype=torch.bool, device=x.device),
        }

    def step(self, state: State) -> Tensor:
        s = state
        logits, loss, gradient = self._evaluate(s)
        wrong, retired, gap = fooled(logits, s["y"], self.guard)
        record(s, wrong, gap)
        finite = logits.isfinite().all(dim=1) & gradient.flatten(1).isfinite().all(1)
        s["broken"] |= ~finite
        first = s["iteration"] < 0
        if bool(first.any()):
            self.flat += int((gradient[first].flatten(1) == 0).all(dim=1).sum())
        done = retired | ~finite | (s["iteration"] == self.steps - 1)
        if bool(done.all()):
            return done
        keep_best(s, loss, gradient)
        s["rises"] += (loss > s["last_loss"]) & ~first
        # The reference compares the first iterate's loss with an unwritten 0.
        s["last_loss"] = torch.where(first, s["last_loss"], loss)
        s["since"] = torch.where(first, s["best_loss"], s["since"])
        gradient = self._halve(s, gradient)
        self._move(s, gradient)
        s["iteration"] += 1
        return done

    def _start(self, x: Tensor, noise: Tensor) -> Tensor:
        norm, eps = self.problem.threat.norm, self.problem.threat.eps
        t = 2 * noise - 1 if norm == "Linf" else noise
        return (x + eps * normalised(t, norm)).clamp_(0, 1)

    def _evaluate(self, s: State) -> tuple[Tensor, Tensor, Tensor]:
        objective = self.problem.objective(self.loss, s["y"], s["target"])
        logits, loss, gradient = self.problem.model.gradient(s["point"], objective)
        for _ in range(self.averaged - 1):
            logits, loss, more = self.problem.model.gradient(s["point"], objective)
            gradient += more
        return logits, loss, gradient / self.averaged if self.averaged > 1 else gradient

    def _halve(self, s: State, gradient: Tensor) -> Tensor:
        """At the end of a window: halves steps that do not pay, back to the best."""
        at = s["iteration"].clamp(min=0)
        ends = self.ends[at] & (s["iteration"] >= 0)
        if not bool(ends.any()):
            return gradient
        idle = s["rises"] <= RISES * self.windows[at]
        stuck = ~s["halved"] & (s["since"] >= s["best_loss"])
        halve = ends & (idle | stuck)
        s["halved"] = torch.where(ends, halve, s["halved"])
        s["since"] = torch.where(ends, s["best_loss"], s["since"])
        s["rises"] = torch.where(ends, 0.0, s["rises"])
        s["size"] = torch.where(halve, s["size"] / 2, s["size"])
        rows = halve.nonzero().flatten()
        s["point"][rows] = s["best_point"][rows]
        gradient[rows] = s["best_gradient"][rows]
        return gradient

    def _move(self, s: State, gradient: Tensor) -> None:
        """A step, then a blend with the last movement; projected both times."""
        point = s["point"]
        weight = torch.where(s["iteration"] < 0, 1.0, MOMENTUM).view(-1, 1, 1, 1)
        size = s["size"].view(-1, 1, 1, 1)
        norm = self.problem.threat.norm
        if norm == "Linf":
            new = gradient.sign_().mul_(size).add_(point)
        else:
            new = normalised(gradient, norm).mul_(size).add_(point)
        new = self._project(s, new)
        new.sub_(point).mul_(weight).add_(point)
        previous = s["previous"].sub_(point).neg_().mul_(1 - weight)
        s["previous"] = point
        s["point"] = self._project(s, new.add_(previous))

    def _project(self, s: State, new: Tensor) -> Tensor:
        if self.problem.threat.norm == "Linf":
            return torch.clamp(new, s["low"], s["high"], out=new)
        x = s["clean"]
        offset = new.sub_(x)
        size = lengths(offset, "L2").view(-1, 1, 1, 1)
        scale = size.clamp(max=self.problem.threat.eps)
        return offset.div_(size + _TINY).mul_(scale).add_(x).clamp_(0, 1)


def normalised(t: Tensor, norm: str) -> Tensor:
    """Rows divided by their norm plus 1e-12."""
    size = lengths(t, norm)  # type: ignore[arg-type]
    return t / (size.view(-1, 1, 1, 1) + _TINY)


def record(s: State, wrong: Tensor, gap: Tensor) -> None:
    """Remembers the last misclassified point of each row, and its least margin."""
    s["gap"] = torch.minimum(s["gap"], gap)
    rows = wrong.nonzero().flatten()
    if len(rows):
        s["image"][rows] = s["point"][rows]
        s["found"][rows] = True


def keep_best(s: State, loss: Tensor, gradient: Tensor) -> None:
    """Best loss so far with its point and gradient; strict increase only."""
    rows = (loss > s["best_loss"]).nonzero().flatten()
    s["best_loss"][rows] = loss[rows]
    s["best_point"][rows] = s["point"][rows]
    s["best_gradient"][rows] = gradient[rows]
