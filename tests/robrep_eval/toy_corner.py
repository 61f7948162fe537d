"""A toy attack on robrep's engine: one file, with its row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.pool import State
from robrep_eval.attacks.problem import Problem, fooled
from robrep_eval.attacks.registry import AttackInfo, Choice
from robrep_eval.attacks.targets import UNTARGETED, Targets
from robrep_eval.attacks.turn import Turn


@dataclass(frozen=True, kw_only=True)
class CornerAttack(EngineAttack):
    """The corner of the Linf ball that the gradient points to, for every class."""

    steps: int = 1
    targets: Targets = UNTARGETED

    def program(self, turn: Turn) -> Corner:
        return Corner(turn.problem, turn.guard)


class Corner:
    """One step from the clean image."""

    steps, clock, lockstep = 1, "iteration", False

    def __init__(self, problem: Problem, guard: float) -> None:
        self.problem = problem
        self.guard = guard

    def begin(self, tasks: Tensor) -> State:
        x = self.problem.x[tasks]
        none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return {
            "task": tasks.to(x.device),
            "iteration": none.long(),
            "found": none,
            "image": x.clone(),
        }

    def step(self, state: State) -> Tensor:
        y = self.problem.y[state["task"]].unsqueeze(1)
        target = self.problem.target[state["task"]].unsqueeze(1)

        def towards(logits: Tensor) -> Tensor:
            return (logits.gather(1, target) - logits.gather(1, y)).squeeze(1)

        model, eps = self.problem.model, self.problem.threat.eps
        _, _, gradient = model.gradient(state["image"], towards)
        state["image"] = (state["image"] + eps * gradient.sign()).clamp(0, 1)
        logits = model.logits(state["image"])
        state["found"], _, _ = fooled(logits, y.squeeze(1), self.guard)
        state["iteration"] += 1
        return torch.ones_like(state["found"])


def chosen(choice: Choice) -> list[CornerAttack]:
    return [
        CornerAttack(
            name="toy-corner",
            targets=Targets(count=5),
            randomness=choice.randomness,
        )
    ]


ROW = AttackInfo(
    name="toy-corner", build="toy_corner:chosen", summary="one corner for every class"
)
