"""Accuracy against the radius, and what one run can honestly say about it.

An image fooled by a perturbation of norm r is fooled at every eps >= r. So the
adversarials of one run bound robust accuracy from above at smaller radii, and a
certified radius bounds it from below; neither says more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from robrep_eval.report.figures import Figure, Key, percent
from robrep_eval.report.seen import Seen
from robrep_eval.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Dot,
    Drawing,
    Line,
    Mark,
    Path,
    Text,
    frame,
)
from zoo.measurements import EpsCurve, LipschitzCertificate, Measurements, Radii
from zoo.pages.axis import Axis, Tick, nice_step
from zoo.records import Result
from zoo.threat import ThreatModel

HEIGHT = 300
Steps = list[tuple[float, float]]
"""Radius and accuracy from it on, the first at radius 0."""


def falling(start: int, radii: Sequence[float], n: int) -> Steps:
    """The share that is left as one image after the other is lost.

    Args:
        start: Images at radius 0.
        radii: Where each of the others is lost.
        n: Images in all.
    """
    left, steps = start, [(0.0, start / n)]
    for radius in sorted(radii):
        left -= 1
        if radius == steps[-1][0]:
            steps.pop()
        steps.append((radius, left / n))
    return steps


def upper_bound(result: Result, seen: Seen) -> Steps:
    """No more than this share can be robust at each radius: evidence, not a model.

    It ends at the radius of the run with the share that was not shown to fail; what is
    undecided counts for the model, as an upper bound must.
    """
    examples = result.examples
    pairs = zip(examples.label, examples.clean_prediction, strict=True)
    perhaps = sum(said in (label, -1) for label, said in pairs)
    eps = result.threat.eps
    # Rounding may carry an adversarial beyond eps by less than the run's tolerance.
    radii = [min(radius, eps) for radius in seen.fooled_at().values()]
    return falling(perhaps, radii, len(examples.label))


def lower_bound(proof: LipschitzCertificate) -> Steps:
    """At least this share is robust at each radius: proved."""
    certified = [radius for radius in proof.radius if radius > 0]
    return falling(len(certified), certified, len(proof.radius))


def value_at(steps: Steps, radius: float) -> float:
    """The share at a radius."""
    return [share for start, share in steps if start <= radius][-1]


def eps_figure(result: Result, measured: Measurements, seen: Seen | None) -> Figure:
    """All that is known about accuracy at other radii."""
    threat, curve, proof = result.threat, measured.eps_curve, measured.lipschitz
    x = Axis(0.0, _reach(threat, curve, proof), LEFT, WIDTH - RIGHT)
    y = _accuracy()
    marks, keys = _frame(x, y, _ticks(x, threat), _radius_name(threat)), []
    told = [f"Clean accuracy is {percent(result.clean.value)}"]
    if proof is not None:
        marks.append(_staircase(lower_bound(proof), x, y, "proof", x.high))
        keys.append(Key(kind="proof", text="certified: at least this much, proved"))
        told.append(
            f"at the run's radius {percent(proof.certified.value)} is certified"
        )
    if seen is not None:
        steps = upper_bound(result, seen)
        marks.append(_staircase(steps, x, y, "evidence", threat.eps))
        level = y(steps[-1][1])
        marks.append(Line(x(threat.eps), level, x.end, level, "beyond"))
        keys += _evidence_keys(seen)
        half, full = value_at(steps, threat.eps / 2), steps[-1][1]
        told.append(
            f"this run's adversarials leave at most {percent(full)} at {threat} and at "
            f"most {percent(half)} at half that radius"
        )
    if curve is not None:
        marks += _measured(curve, x, y)
        keys.append(Key(kind="points", text=_points_text(curve, result)))
        points = ", ".join(
            f"{percent(p.robust.value)} at {p.eps:g}" for p in curve.points[1:]
        )
        told.append(f"{curve.attack} leaves {points}")
    marks += _radius_line(x, y, threat)
    return Figure(
        drawing=Drawing(
            key="eps",
            title="Accuracy against eps",
            description="; ".join(told) + ".",
            height=HEIGHT,
            marks=marks,
        ),
        keys=keys,
    )


def radii_figure(key: str, title: str, radii: Radii, name: str) -> Figure:
    """Certified accuracy against radius, for a certificate of its own."""
    x = Axis(0.0, max(radii.radius[-1], 1e-9), LEFT, WIDTH - RIGHT)
    y = _accuracy()
    shares = [(r, c.value) for r, c in zip(radii.radius, radii.certified, strict=True)]
    marks = _frame(x, y, x.ticks(nice_step(x.high), "{:g}".format), name)
    marks.append(Path([(x(r), y(share)) for r, share in shares], "proof"))
    told = ", ".join(f"{percent(share)} at {r:.3g}" for r, share in shares[::5])
    return Figure(
        drawing=Drawing(
            key=key, title=title, description=told, height=HEIGHT, marks=marks
        )
    )


def _reach(
    threat: ThreatModel, curve: EpsCurve | None, proof: LipschitzCertificate | None
) -> float:
    """The largest radius that the figure has something to say about."""
    reach = 1.25 * threat.eps
    if curve is not None:
        reach = max(reach, curve.points[-1].eps)
    if proof is not None:
        reach = max(reach, min(2 * threat.eps, max(proof.radius, default=0.0)))
    return reach


def _accuracy() -> Axis:
    return Axis(0.0, 1.0, HEIGHT - BOTTOM, TOP + 12)


def _frame(x: Axis, y: Axis, ticks: Sequence[Tick], name: str) -> list[Mark]:
    return frame(
        x,
        y,
        x_ticks=ticks,
        y_ticks=y.ticks(0.25, lambda share: f"{100 * share:.0f}"),
        x_name=name,
        y_name="accuracy, %",
    )


def _in_255(threat: ThreatModel) -> bool:
    """Whether the radius is one of those that people write as k/255."""
    return "/255" in str(threat)


def _radius_name(threat: ThreatModel) -> str:
    unit = " (in 1/255)" if _in_255(threat) else ""
    return f"eps, {threat.norm}{unit}"


def _ticks(x: Axis, threat: ThreatModel) -> list[Tick]:
    scale = 255.0 if _in_255(threat) else 1.0
    show: Callable[[float], str] = lambda radius: f"{scale * radius:g}"  # noqa: E731
    return x.ticks(nice_step(scale * x.high) / scale, show)


def _staircase(steps: Steps, x: Axis, y: Axis, kind: str, until: float) -> Path:
    """Level, then down; steps closer than the drawing can show are merged."""
    points = [(x(0.0), y(steps[0][1]))]
    for (_, before), (radius, share) in pairwise(steps):
        if radius > until:
            break
        if x(radius) == points[-1][0]:
            points[-1] = (x(radius), y(share))
        else:
            points += [(x(radius), y(before)), (x(radius), y(share))]
    points.append((x(until), points[-1][1]))
    return Path(points, kind)


def _measured(curve: EpsCurve, x: Axis, y: Axis) -> list[Mark]:
    """Points with intervals; the line between them only guides the eye."""
    at = [(x(point.eps), point.robust) for point in curve.points]
    marks: list[Mark] = [Path([(px, y(f.value)) for px, f in at], "guide")]
    for px, figure in at:
        marks.append(Line(px, y(figure.low), px, y(figure.high), "error"))
        marks.append(Dot(px, y(figure.value), 3.5, "points", str(figure)))
    return marks


def _points_text(curve: EpsCurve, result: Result) -> str:
    n = curve.points[0].robust.n
    images = "the same images" if n == result.dataset.n else f"the first {n} images"
    return (
        f"{curve.attack}, {images} attacked anew at each radius, 95% intervals; one "
        "fixed attack, weaker than a battery"
    )


def _evidence_keys(seen: Seen) -> list[Key]:
    count = len(seen.shrunk)
    how = ""
    if seen.shrunk_count:
        part = "" if seen.shrunk_count == count else f" (the first {seen.shrunk_count})"
        how = f", shrunk towards its image{part} until it just still fools"
    return [
        Key(
            kind="evidence",
            text=f"at most this much: each of this run's adversarials{how}",
        ),
        Key(
            kind="beyond",
            text="not attacked beyond the run's radius: the truth can only be lower",
        ),
    ]


def _radius_line(x: Axis, y: Axis, threat: ThreatModel) -> list[Mark]:
    at = x(threat.eps)
    return [
        Line(at, y.start, at, y.end, "radius"),
        Text(at, y.end - 6, str(threat), "middle", "note"),
    ]
