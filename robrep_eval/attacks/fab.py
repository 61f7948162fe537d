"""FAB: steps to the linearised decision boundary, for the smallest perturbation.

Source: Croce & Hein 2020, arXiv 1907.02044, algorithm 1; targeted as in AutoAttack
(arXiv 2003.01690, section 5). Here it serves as AutoAttack uses it: an example falls
as soon as an iterate within eps is misclassified, and need not be followed further,
since the smallest distance never grows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robrep_eval.attacks import hyperplane
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.noise import Rows
from robrep_eval.attacks.pool import State, told
from robrep_eval.attacks.problem import Problem, fooled
from robrep_eval.attacks.targets import UNTARGETED, Targets
from robrep_eval.attacks.turn import Turn
from zoo.ball import lengths

ALPHA_MAX = 0.1
OVERSHOOT = 1.05
BACK = 0.9


@dataclass(frozen=True, kw_only=True)
class FabAttack(EngineAttack):
    """FAB; see `robrep_eval.attacks.base.Attack`. The first run of a target starts at
    the clean image, its restarts beside it."""

    targets: Targets = UNTARGETED

    def __post_init__(self) -> None:
        if self.targets.near < 1:
            raise ValueError("FAB keeps no margins, by which `near` chooses examples")

    def program(self, turn: Turn) -> Fab:
        again = turn.runs[0] % self.restarts > 0
        return Fab(
            turn.problem,
            turn.start_noise() if again else None,
            iterations=self.steps,
            guard=turn.guard,
            classes=None if self.targets.count else turn.classes,
        )


class Fab:
    """The program of one target (or of one untargeted restart).

    Args:
        problem: The examples.
        draws: Start noise for restarts (uniform for Linf, else normal); None starts
            at the clean image.
        iterations: Steps; one gradient and one more forward pass each.
        guard: Margin beyond which a fooled row retires; infinity: never.
        classes: Number of classes for the untargeted form, which takes the nearest
            linearised boundary at one backward pass per class; None: targeted.
    """

    clock = "iteration"
    lockstep = False

    def __init__(
        self,
        problem: Problem,
        draws: Rows | None,
        *,
        iterations: int,
        guard: float,
        classes: int | None = None,
    ) -> None:
        self.problem = problem
        self.draws = draws
        self.steps = iterations
        self.guard = guard
        self.classes = classes
        eps = problem.threat.eps
        # With a guard, a row at the very edge of the ball is followed further.
        self.safe = eps if guard == 0 else eps * (1 - 1e-6)

    def begin(self, tasks: Tensor) -> State:
        x = self.problem.x[tasks]
        n, device = len(x), x.device
        return {
            "task": tasks.to(device),
            "y": self.problem.y[tasks],
            "target": self.problem.target[tasks],
            "clean": x,
            "point": self._start(x, tasks),
            "iteration": torch.zeros(n, dtype=torch.int64, device=device),
            "image": x.clone(),
            "nearest": x.new_full((n,), float("inf")),
            "found": torch.zeros(n, dtype=torch.bool, device=device),
            "broken": torch.zeros(n, dtype=torch.bool, device=device),
        }

    def step(self, state: State) -> Tensor | None:
        s = state
        f, w = self._plane(s)
        point = self._approach(s, f, w)
        finite = point.flatten(1).isfinite().all(dim=1)
        s["broken"] |= ~finite
        point = point.where(finite.view(-1, 1, 1, 1), s["point"])
        logits = self.problem.model.logits(point)
        wrong, sure, _ = fooled(logits, s["y"], self.guard)
        distance = lengths(point - s["clean"], self.problem.threat.norm)
        s["iteration"] += 1
        retired = sure & (distance <= self.safe)
        done = retired | (s["iteration"] == self.steps) | ~finite
        some, crossed = told(done.any(), wrong.any())
        s["point"] = self._crossed(s, point, wrong, distance) if crossed else point
        return done if some else None

    def _crossed(
        self, s: State, point: Tensor, wrong: Tensor, distance: Tensor
    ) -> Tensor:
        """Keeps nearer points; where a row is misclassified it goes a way back."""
        nearer = wrong & (distance < s["nearest"])
        s["image"] = torch.where(nearer.view(-1, 1, 1, 1), point, s["image"])
        s["nearest"] = torch.where(nearer, distance, s["nearest"])
        s["found"] = s["nearest"] <= self.problem.threat.eps
        back = s["clean"] + (point - s["clean"]) * BACK
        return torch.where(wrong.view(-1, 1, 1, 1), back, point)

    def _start(self, x: Tensor, tasks: Tensor) -> Tensor:
        """The clean image, or a point at half of eps from it."""
        if self.draws is None:
            return x.clone()
        noise = self.draws(tasks).to(x)
        norm, eps = self.problem.threat.norm, self.problem.threat.eps
        t = 2 * noise - 1 if norm == "Linf" else noise
        size = lengths(t, norm).view(-1, 1, 1, 1)
        return (x + eps * t / size * 0.5).clamp_(0, 1)

    def _plane(self, s: State) -> tuple[Tensor, Tensor]:
        """Value (n,) and gradient (n, D) of the logit difference to be crossed."""
        if self.classes is None:

            def difference(logits: Tensor) -> Tensor:
                y, t = s["y"].unsqueeze(1), s["target"].unsqueeze(1)
                return -(logits.gather(1, y) - logits.gather(1, t)).squeeze(1)

            _, f, gradient = self.problem.model.gradient(s["point"], difference)
            return f, gradient.flatten(1)
        classes = torch.arange(self.classes, device=s["y"].device)
        everywhere = classes.expand(len(s["y"]), -1)
        logits, rows = self.problem.model.jacobian(s["point"], everywhere)
        at = torch.arange(len(logits), device=logits.device)
        f = logits - logits.gather(1, s["y"].unsqueeze(1))
        w = (rows - rows[at, s["y"]].unsqueeze(1)).flatten(2)  # (n, K, D)
        dual = hyperplane.dual_lengths(w, self.problem.threat.norm)
        distance = f.abs() / (1e-12 + dual)
        distance[at, s["y"]] = float("inf")
        nearest = distance.argmin(dim=1)
        return f[at, nearest], w[at, nearest]

    def _approach(self, s: State, f: Tensor, w: Tensor) -> Tensor:
        """Between the projections of the iterate and of the clean image."""
        norm = self.problem.threat.norm
        point, clean = s["point"].flatten(1), s["clean"].flatten(1)
        b = (w * point).sum(dim=1) - f
        both = hyperplane.project(
            torch.cat([point, clean]), torch.cat([w, w]), torch.cat([b, b]), norm
        )
        sizes = lengths(both, norm).clamp(min=1e-8)
        near, far = sizes.chunk(2)
        alpha = (near / (near + far)).clamp(0, ALPHA_MAX).unsqueeze(1)
        to_plane, from_clean = both.chunk(2)
        new = (point + OVERSHOOT * to_plane) * (1 - alpha)
        new += (clean + OVERSHOOT * from_clean) * alpha
        return new.clamp_(0, 1).view_as(s["point"])
