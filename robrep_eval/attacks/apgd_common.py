"""What the two programs of APGD share: a gradient, and what is remembered of a row."""

from __future__ import annotations

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
