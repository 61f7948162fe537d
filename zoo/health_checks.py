"""Which health checks a report of a level lists, and the limits that are robrep's.

`robrep_eval.measures.health` makes them; a test holds both to the same.
"""

from __future__ import annotations

from zoo.measurements import HealthReport
from zoo.schema import Proportion
from zoo.soundness import AGREEMENT

DEFAULT = (
    "deterministic",
    "batch_independent",
    "logits",
    "static_forward",
    "input_range",
    "clean_first",
    "differentiable",
    "gradient_agrees",
    "gradient_nonzero",
    "smooth_loss",
    "eps_monotone",
    "large_eps_breaks",
    "stronger_beats_weaker",
    "white_box_beats_black_box",
    "finds_planted",
    "worst_case",
    "inside_the_ball",
)
"""In every report, from the first version on."""
LATER = ("stateless", "other_losses", "decision_probe", "surrogate")
"""Of the default set since 0.2: a report has all of these or none."""
FULL = (
    "silent_success",
    "converged",
    "twin_transfer",
    "loss_consistent",
    "losses_agree",
    "precision",
    "breaks_control",
)
"""Of the level "full", besides."""
LIMITS = {
    "deterministic": AGREEMENT,
    "stateless": AGREEMENT,
    "static_forward": 0.0,
    "input_range": 0.1,
    "differentiable": 0.01,
    "gradient_agrees": 0.01,
    "gradient_nonzero": 0.02,
    "smooth_loss": 0.1,
    "finds_planted": 0.05,
    "worst_case": 0.0,
    "silent_success": 0.01,
    "precision": 0.01,
    "loss_consistent": 0.0,
    "breaks_control": 0.05,
}
"""Of the checks whose limit is a number of robrep's own. Of `PLANTED` it is what they
compare with since 0.2, by `planted_limit`, and was the limit itself before."""
PLANTS = 64
"""Images that the two checks with planted adversarials look at, at most."""
PLANTED = ("finds_planted", "breaks_control")
"""Whose limit is higher where images are few."""
_CALLED = {"gives_logits": "logits"}
"""A check that could not be carried out goes by its function's name."""


def limit_of(total: int, rate: float) -> float:
    """The largest share of so many images whose exact 95% interval reaches `rate`.

    A check that fails above it says that the share among all images is above `rate`,
    not that a few images happened to be.
    """
    count = 0
    while count < total and Proportion.of(count + 1, total).low <= rate:
        count += 1
    return count / max(1, total)


def planted_limit(images: int) -> float:
    """Of the checks with planted adversarials, in a report on so many images."""
    return limit_of(min(PLANTS, images), LIMITS["finds_planted"])


def fault(report: HealthReport) -> str | None:
    """What the list of checks lacks, or holds beyond its level; None: it is whole."""
    names = [_CALLED.get(flag.check, flag.check) for flag in report.flags]
    wanted = {*DEFAULT, *(FULL if report.level == "full" else ())}
    wanted |= set(LATER) if set(LATER) & set(names) else set()
    if missing := sorted(wanted - set(names)):
        return f"the health checks lack {', '.join(missing)}"
    if beyond := sorted(set(names) - wanted):
        return f"no health check of level {report.level} is called {', '.join(beyond)}"
    if len(names) > len(wanted):
        return "a health check is listed twice"
    for flag in report.flags:
        limit = LIMITS.get(flag.check)
        if limit is None or flag.limit is None or flag.limit == limit:
            continue
        if flag.check not in PLANTED or flag.limit != planted_limit(report.n):
            return f"the limit of {flag.check} is {limit:g}, not {flag.limit:g}"
    return None
