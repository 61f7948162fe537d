"""What the two programs of APGD share: a gradient, and what is remembered of a row."""

from __future__ import annotations

import torch
from torch import Tensor

from robrep_eval.attacks.losses import Loss
from robrep_eval.attacks.pool import State
from robrep_eval.attacks.problem import Problem


def averaged_gradient(
    problem: Problem, loss: Loss, s: State, passes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and loss of the last of several passes, and the mean of the gradients."""
    objective = problem.objective(loss, s["y"], s["target"])
    logits, value, gradient = problem.model.gradient(s["point"], objective)
    for _ in range(passes - 1):
        logits, value, more = problem.model.gradient(s["point"], objective)
        gradient += more
    return logits, value, gradient / passes if passes > 1 else gradient


def record(s: State, wrong: Tensor, logits: Tensor) -> None:
    """Remembers the last misclassified point of each row, and the least distance of
    each class's logit from the label's, (n, classes)."""
    gaps = logits.gather(1, s["y"].unsqueeze(1)) - logits
    s["gaps"] = s["gaps"].minimum(gaps)
    s["image"] = torch.where(wrong.view(-1, 1, 1, 1), s["point"], s["image"])
    s["found"] = s["found"] | wrong


def keep_best(s: State, loss: Tensor, gradient: Tensor) -> None:
    """Best loss so far with its point and gradient; strict increase only."""
    better = loss > s["best_loss"]
    s["best_loss"] = torch.where(better, loss, s["best_loss"])
    of_row = better.view(-1, 1, 1, 1)
    s["best_point"] = torch.where(of_row, s["point"], s["best_point"])
    s["best_gradient"] = torch.where(of_row, gradient, s["best_gradient"])


def flat_starts(gradient: Tensor, first: Tensor) -> int:
    """How many of the rows where `first` holds have no gradient at all."""
    return int(((gradient == 0).flatten(1).all(dim=1) & first).sum())
