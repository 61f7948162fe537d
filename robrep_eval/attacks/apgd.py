"""APGD: projected ascent with momentum and a step size that halves by itself.

The attack in any norm, and its program for Linf and L2; that for L1 is in `apgd_l1`.
Every quantity belongs to one row, so rows at different iterations share a batch.

Source: Croce & Hein 2020, arXiv 2003.01690, algorithm 1; the details that the paper
leaves open follow the authors' published implementation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robrep_eval.attacks import starts
from robrep_eval.attacks.apgd_common import (
    averaged_gradient,
    flat_starts,
    keep_best,
    record,
)
from robrep_eval.attacks.apgd_l1 import ApgdL1
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.losses import LOSSES, Loss
from robrep_eval.attacks.noise import Rows
from robrep_eval.attacks.pool import Program, State, told
from robrep_eval.attacks.problem import Problem, fooled
from robrep_eval.attacks.starts import OPENING, Start
from robrep_eval.attacks.targets import UNTARGETED, Targets
from robrep_eval.attacks.turn import Turn
from zoo.ball import lengths

MOMENTUM = 0.75
RISES = 0.75
"""Share of rising losses in a window below which the step is halved."""
_TINY = 1e-12  # added to norms before division


@dataclass(frozen=True, kw_only=True)
class ApgdAttack(EngineAttack):
    """APGD in any norm; see `robrep_eval.attacks.base.Attack`."""

    loss: str
    """A name in `robrep_eval.attacks.losses.LOSSES`."""
    targets: Targets = UNTARGETED
    start: Start = "random"
    larger_radii: bool = False
    """L1 only: begin at 3 eps and 2 eps."""
    averaged: int = 1
    """Passes per gradient, for stochastic classifiers."""

    @property
    def parameters(self) -> dict[str, Any]:
        shown = super().parameters | {
            "loss": self.loss,
            "averaged": self.averaged,
            "larger_radii": self.larger_radii,
        }
        if self.start != "random":
            shown["start"] = self.start
        return shown

    @property
    def alike(self) -> bool:
        return True

    def program(self, turn: Turn) -> Program:
        problem, loss = turn.problem, LOSSES[self.loss]
        draws = starts.noise(self.start, turn)
        if problem.threat.norm != "L1":
            return Apgd(
                problem,
                loss,
                draws,
                iterations=self.steps,
                guard=turn.guard,
                classes=turn.classes,
                averaged=self.averaged,
                opening=starts.weights(turn) if self.start == "diversified" else None,
            )
        if self.larger_radii:
            for _ in range(3):  # a start per stage that the reference throws away
                turn.noise.discard("normal", len(problem.x), problem.x.shape[1:])
        return ApgdL1(
            problem,
            loss,
            draws,
            iterations=self.steps,
            guard=turn.guard,
            classes=turn.classes,
            averaged=self.averaged,
            larger=self.larger_radii,
        )


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
        classes: Number of logits.
        averaged: Passes per gradient (EoT); with more than one, no row retires
            early, as a stochastic model's verdict on one pass is noise.
        opening: Weights of the combination of logits that the first steps go up.
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
        opening: Rows | None = None,
    ) -> None:
        self.problem = problem
        self.loss = loss
        self.draws = draws
        self.steps = iterations
        self.guard = guard if averaged == 1 else float("inf")
        self.classes = classes
        self.averaged = averaged
        self.opening = opening
        device = problem.x.device
        self.ends, self.windows = (t.to(device) for t in checkpoints(iterations))
        self.flat = 0  # rows whose gradient at the start was exactly zero
        self.fresh = True  # rows may be at their start

    def begin(self, tasks: Tensor) -> State:
        self.fresh = True
        x = self.problem.x[tasks]
        start = self._start(x, self.draws(tasks).to(x))
        n, eps = len(x), self.problem.threat.eps
        ball = {"clean": x}
        if self.problem.threat.norm == "Linf":
            ball = {"low": (x - eps).clamp_(min=0), "high": (x + eps).clamp_(max=1)}
        if self.opening is not None:
            start = self._opened(start, self.opening(tasks).to(x), ball)
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
            "gaps": x.new_full((n, self.classes), float("inf")),
            "found": torch.zeros(n, dtype=torch.bool, device=x.device),
            "broken": torch.zeros(n, dtype=torch.bool, device=x.device),
        }

    def step(self, state: State) -> Tensor | None:
        s = state
        logits, loss, gradient = averaged_gradient(
            self.problem, self.loss, s, self.averaged
        )
        wrong, retired, _ = fooled(logits, s["y"], self.guard)
        record(s, wrong, logits)
        finite = logits.isfinite().all(dim=1) & gradient.flatten(1).isfinite().all(1)
        s["broken"] |= ~finite
        first = s["iteration"] < 0
        if self.fresh:
            self.flat += flat_starts(gradient, first)
            self.fresh = False
        done = retired | ~finite | (s["iteration"] == self.steps - 1)
        ends = self.ends[s["iteration"].clamp(min=0)] & ~first
        some, every, window = told(done.any(), done.all(), ends.any())
        if every:
            return done
        keep_best(s, loss, gradient)
        s["rises"] += (loss > s["last_loss"]) & ~first
        # The reference compares the first iterate's loss with an unwritten 0.
        s["last_loss"] = torch.where(first, s["last_loss"], loss)
        s["since"] = torch.where(first, s["best_loss"], s["since"])
        if window:
            gradient = self._halve(s, gradient, ends)
        self._move(s, gradient)
        s["iteration"] += 1
        return done if some else None

    def _start(self, x: Tensor, noise: Tensor) -> Tensor:
        norm, eps = self.problem.threat.norm, self.problem.threat.eps
        t = 2 * noise - 1 if norm == "Linf" else noise
        return (x + eps * normalised(t, norm)).clamp_(0, 1)

    def _opened(self, point: Tensor, weights: Tensor, ball: State) -> Tensor:
        """Some steps of eps up a combination of logits."""
        norm, eps = self.problem.threat.norm, self.problem.threat.eps
        for _ in range(OPENING):
            _, _, gradient = self.problem.model.gradient(
                point, lambda logits: (weights * logits).sum(dim=1)
            )
            step = gradient.sign() if norm == "Linf" else normalised(gradient, norm)
            point = self._project(ball, point + eps * step)
        return point

    def _halve(self, s: State, gradient: Tensor, ends: Tensor) -> Tensor:
        """At the end of a window: halves steps that do not pay, back to the best."""
        at = s["iteration"].clamp(min=0)
        idle = s["rises"] <= RISES * self.windows[at]
        stuck = ~s["halved"] & (s["since"] >= s["best_loss"])
        halve = ends & (idle | stuck)
        s["halved"] = torch.where(ends, halve, s["halved"])
        s["since"] = torch.where(ends, s["best_loss"], s["since"])
        s["rises"] = torch.where(ends, 0.0, s["rises"])
        s["size"] = torch.where(halve, s["size"] / 2, s["size"])
        of_row = halve.view(-1, 1, 1, 1)
        s["point"] = torch.where(of_row, s["best_point"], s["point"])
        return torch.where(of_row, s["best_gradient"], gradient)

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
