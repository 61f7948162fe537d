"""The answer first: verdict of the evaluation, what limits the figure, one-liners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robrep_eval.report.figures import percent
from robrep_eval.report.gallery import Gallery
from robrep_eval.report.material import Material
from zoo.judgement import judge
from zoo.measurements import BoundEstimate, HealthReport, Limit, Status
from zoo.records import AttackRun


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A word or two, and why."""

    word: str
    reason: str
    status: str = ""
    """"pass", "warn" or "fail", for its colour."""


LIMITS = {
    Limit.NONE: Answer(word="nothing", reason="every image passes the margin test"),
    Limit.FIT: Answer(
        word="the fit", reason="most of what is lost is wrong without any attack"
    ),
    Limit.HEAD: Answer(
        word="the head", reason="another linear probe could hold most that may fall"
    ),
    Limit.ENCODER: Answer(
        word="the encoder", reason="features move too far for any linear probe"
    ),
}


def verdict(health: HealthReport | None) -> Answer:
    """Is the evaluation itself sound, by its health checks?"""
    word = str(judge(health))
    if health is None:
        return Answer(word=word, reason="no health check ran", status="warn")
    n = len(health.flags)
    bad = [flag for flag in health.flags if flag.status is not Status.PASS]
    reason = f"{n - len(bad)} of {n} checks pass"
    if bad:
        first = next((f for f in bad if f.status is Status.FAIL), bad[0])
        reason += f"; see {first.check.replace('_', ' ')}"
    return Answer(word=word, reason=reason, status=health.worst.value)


def limit(bound: BoundEstimate | None) -> Answer | None:
    """What keeps most images from being held for sure; an estimate."""
    return None if bound is None else LIMITS[bound.limited_by]


def told(
    material: Material,
    attacks: Sequence[tuple[str, AttackRun]],
    gallery: Gallery | None,
) -> dict[str, str]:
    """By section, what stands beside its heading while it is folded."""
    result, measured = material.result, material.measured
    count = f"{len(attacks)} attacks, {result.evidence.count:,} adversarials"
    lines = {
        "attacks": f"{count}, each checked again" if attacks else "none was run",
        "radius": f"at and around {result.threat}",
        "images": f"{len(gallery.pictures)} adversarials" if gallery else "",
        "classes": f"{len(set(result.examples.label))}, from the record",
        "features": "how far an attack moves them",
        "bound": "",
        "health": verdict(measured.health).reason,
        "more": "certificates, label-free figures, corruptions",
        "provenance": f"robrep {result.provenance.robrep}, "
        f"{result.provenance.created:%Y-%m-%d}",
    }
    if measured.bound is not None:
        margin = percent(measured.bound.estimated_robust.value)
        lines["bound"] = f"an estimate; {margin} pass the margin test"
    return lines
