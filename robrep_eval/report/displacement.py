"""How far attacks carry features, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from robrep_eval.probes.linear import features
from robrep_eval.report.figures import Figure, Key
from robrep_eval.report.material import Material
from robrep_eval.report.seen import Seen
from robrep_eval.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Drawing,
    Mark,
    Rect,
    frame,
)
from zoo.bound import median_distance
from zoo.feature_metric import WHITENED
from zoo.layout import Layout
from zoo.measurements import BoundEstimate
from zoo.pages.axis import Axis, nice_step
from zoo.records import Verdict

HEIGHT = 260
BINS = 24
LIMIT = 1000
"""Adversarials whose features are computed."""

KINDS = {
    Verdict.ROBUST: ("held", "held"),
    Verdict.FOOLED: ("fooled", "fooled"),
    Verdict.MISCLASSIFIED: ("clean", "wrong when clean"),
    Verdict.UNDECIDED: ("band", "undecided"),
}
"""Style and words of each verdict."""


@dataclass(frozen=True, kw_only=True)
class Displacements:
    """How far features were moved, over the median distance of two images."""

    relative: list[float]
    verdicts: list[Verdict]
    source: str
    """Which attacks and images these are."""


def displacements(
    material: Material, seen: Seen | None, *, device: str = "cpu"
) -> Displacements | None:
    """From the recorded bound, else from the adversarials; None without either.

    Raises:
        UserError: features that are NaN or infinite.
    """
    bound = material.measured.bound
    verdicts = material.result.examples.verdict
    if bound is not None and bound.relative_displacement > 0:
        scale = bound.displacement / bound.relative_displacement
        moved = [r / scale for r in bound.examples["displacement"]]
        return Displacements(
            relative=moved,
            verdicts=verdicts[: len(moved)],
            source=f"{len(moved)} images, each under the strongest of an attack on the "
            "features themselves, one on the cross-entropy and all adversarials of the "
            f"run: estimates from below{_units(bound)}",
        )
    return _of_adversarials(material, seen, device)


def _units(bound: BoundEstimate) -> str:
    return ", of whitened features" if bound.feature_metric == WHITENED else ""


def _of_adversarials(
    material: Material, seen: Seen | None, device: str
) -> Displacements | None:
    data, classifier, claims = material.data, material.classifier, material.claims
    if data is None or classifier is None or claims is None or not seen:
        return None
    firsts = list(seen.first().items())[:LIMIT]
    if not firsts:
        return None
    rows = [row for row, _ in firsts]
    clean = features(
        classifier.encoder, data.images(rows), Layout(device=device)
    ).flatten(1)
    images = claims.images[[at for _, at in firsts]]
    moved = features(classifier.encoder, images, Layout(device=device)).flatten(1)
    scale = median_distance(clean)
    if not scale:
        return None
    lengths = (moved.double() - clean.double()).square().sum(dim=1).sqrt() / scale
    return Displacements(
        relative=lengths.tolist(),
        verdicts=[material.result.examples.verdict[row] for row in rows],
        source=f"{len(rows)} fooled images and their adversarials; the run holds no "
        "displacement of the others",
    )


def displacement_figure(found: Displacements) -> Figure:
    """Histogram of the displacement, split by verdict."""
    moved = found.relative
    x = Axis(0.0, max(*moved, 1e-9) * 1.001, LEFT, WIDTH - RIGHT)
    columns = {
        kind: _counts(
            [r for r, v in zip(moved, found.verdicts, strict=True) if v is kind], x.high
        )
        for kind in KINDS
    }
    highest = max(map(sum, zip(*columns.values(), strict=True)))
    y = Axis(0.0, 1.05 * highest, HEIGHT - BOTTOM, TOP)
    step = max(1.0, nice_step(highest, 4))
    marks = frame(
        x,
        y,
        x_ticks=x.ticks(nice_step(x.high), "{:g}".format),
        y_ticks=y.ticks(step, "{:g}".format),
        x_name="displacement / median distance of two images",
        y_name="images",
    )
    marks += _stacks(columns, x, y)
    shown = [kind for kind in KINDS if any(columns[kind])]
    return Figure(
        drawing=Drawing(
            key="displacement",
            title="How far attacks move features",
            description=f"Histogram over {len(moved)} images: median "
            f"{median(moved):.3g}, largest {max(moved):.3g} of the median distance "
            "between two images.",
            height=HEIGHT,
            marks=marks,
        ),
        keys=[Key(kind=KINDS[v][0], text=KINDS[v][1]) for v in shown],
        note=f"Of {found.source}.",
    )


def _counts(values: Sequence[float], high: float) -> list[int]:
    found = [0] * BINS
    for value in values:
        found[min(BINS - 1, int(BINS * value / high))] += 1
    return found


def _stacks(columns: dict[Verdict, list[int]], x: Axis, y: Axis) -> list[Mark]:
    """One column for each bin, verdicts on top of each other."""
    marks: list[Mark] = []
    width = (x.end - x.start) / BINS
    for at in range(BINS):
        below = 0
        for kind, counts in columns.items():
            if counts[at]:
                top, foot = y(below + counts[at]), y(below)
                left = round(x.start + at * width + 0.5, 1)
                height = round(foot - top, 1)
                bar = Rect(left, top, round(width - 1, 1), height, KINDS[kind][0])
                marks.append(bar)
                below += counts[at]
    return marks
