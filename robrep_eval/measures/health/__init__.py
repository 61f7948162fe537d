"""Health checks: is this evaluation worth anything? Each gives one flag.

The default set is cheap and runs every time; `full` adds the rest. Sources: Carlini et
al. 2019 (arXiv 1902.06705), Tramer et al. 2020 (2002.08347), Croce et al. 2022
(2202.13711), Pintor et al. 2022 (2106.09947), Zimmermann et al. 2022 (2206.13991) and
AutoAttack's own flags. A list is neither necessary nor sufficient; it tests the attack
as hard as the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from robrep_eval.measures.health import (
    attack,
    black_box,
    full,
    gradient,
    model,
    outcome,
    planted,
    standing,
)
from robrep_eval.measures.health.subject import Subject
from zoo.measurements import Flag, HealthReport, Status

__all__ = ["DEFAULT", "FULL", "Level", "Subject", "check_health"]

Check = Callable[[Subject], Flag]
Level = Literal["default", "full"]

DEFAULT: tuple[Check, ...] = (
    model.stateless,
    model.deterministic,
    model.batch_independent,
    model.gives_logits,
    model.static_forward,
    model.input_range,
    model.clean_first,
    gradient.differentiable,
    gradient.gradient_agrees,
    gradient.gradient_nonzero,
    gradient.smooth_loss,
    attack.eps_monotone,
    attack.large_eps_breaks,
    attack.stronger_beats_weaker,
    black_box.white_box_beats_black_box,
    standing.other_losses,
    standing.decision_probe,
    standing.surrogate,
    planted.finds_planted,
    outcome.worst_case,
    outcome.inside_the_ball,
)
FULL: tuple[Check, ...] = (
    *DEFAULT,
    full.silent_success,
    full.converged,
    full.twin_transfer,
    full.loss_consistent,
    full.losses_agree,
    full.precision,
    full.breaks_control,
)


def check_health(
    subject: Subject,
    level: Level = "default",
    on_progress: Callable[[float], None] = lambda _: None,
) -> HealthReport:
    """Runs all checks of a level, in order; none stops the others.

    A check that itself fails on a strange model becomes a flag that says so.
    """
    checks: Sequence[Check] = FULL if level == "full" else DEFAULT
    flags = []
    for at, check in enumerate(checks):
        flags.append(_run(check, subject))
        on_progress((at + 1) / len(checks))
    return HealthReport(level=level, n=len(subject.x), flags=flags)


def _run(check: Check, subject: Subject) -> Flag:
    """One check, from the same random state whatever ran before it."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(subject.seed)
            return check(subject)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Flag(
            check=check.__name__,
            status=Status.FAIL,
            summary=f"the check could not be carried out on this model: {reason}",
        )
