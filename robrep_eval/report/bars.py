"""Horizontal bars: attacks, the bracket around the truth, the bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robrep_eval.report.figures import Figure, nats, percent
from robrep_eval.report.svg import (
    RIGHT,
    WIDTH,
    Drawing,
    Line,
    Mark,
    Rect,
    Text,
    foot,
    shorten,
)
from zoo.measurements import BoundEstimate, Limit, Measurements
from zoo.pages.axis import Axis, Tick, nice_step
from zoo.records import Proportion, Result

ROW, BAR, FIRST, FOOT = 38, 12, 18, 46
EDGE = 12
LETTERS = 45
"""Of a label and its value, together on one line."""

LIMITS = {
    Limit.NONE: "held by the margin test",
    Limit.FIT: "fit: wrong when clean",
    Limit.HEAD: "head: another head could hold it",
    Limit.ENCODER: "encoder: no head can hold it",
}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row: a label, its value in words, and a bar from `start` to `end`."""

    label: str
    value: str
    end: float
    kind: str
    start: float = 0.0
    whisker: tuple[float, float] | None = None


def bars(
    key: str,
    title: str,
    description: str,
    rows: Sequence[Bar],
    *,
    axis: Axis,
    ticks: Sequence[Tick],
    name: str,
) -> Drawing:
    """Rows from top to bottom, each with its label above its bar."""
    marks: list[Mark] = []
    bottom = FIRST + ROW * len(rows) - 6
    marks += foot(axis, ticks, bottom, FIRST - 10, name)
    for at, row in enumerate(rows):
        marks += _row(row, axis, FIRST + ROW * at)
    return Drawing(
        key=key, title=title, description=description, height=bottom + FOOT, marks=marks
    )


def _row(row: Bar, axis: Axis, y: float) -> list[Mark]:
    top = y + 6
    start, end = axis(row.start), axis(row.end)
    marks: list[Mark] = [
        Text(axis.start, y, shorten(row.label, LETTERS - len(row.value))),
        Text(axis.end, y, row.value, "end", "value"),
        Rect(axis.start, top, axis.end - axis.start, BAR, "track"),
        Rect(start, top, round(end - start, 1), BAR, row.kind),
    ]
    if row.whisker:
        low, high = (axis(value) for value in row.whisker)
        middle = top + BAR / 2
        marks += [
            Line(low, middle, high, middle, "whisker"),
            Line(low, middle - 4, low, middle + 4, "whisker"),
            Line(high, middle - 4, high, middle + 4, "whisker"),
        ]
    return marks


def shares() -> tuple[Axis, list[Tick]]:
    """An axis from 0 to 100%."""
    axis = Axis(0.0, 1.0, EDGE, WIDTH - RIGHT)
    return axis, axis.ticks(0.25, lambda share: f"{100 * share:.0f}")


def share_bar(label: str, figure: Proportion, kind: str) -> Bar:
    """A share with its interval."""
    return Bar(
        label=label,
        value=str(figure),
        end=figure.value,
        kind=kind,
        whisker=(figure.low, figure.high),
    )


def attack_labels(result: Result) -> list[str]:
    """Names of the attacks; "then" where one met the survivors of those before."""
    seen, labels = False, []
    for run in result.attacks:
        labels.append(f"then {run.name}" if run.sequence and seen else run.name)
        seen = seen or run.sequence
    return labels


def attack_bars(result: Result) -> Figure:
    """Accuracy when clean, under each attack, and in the worst case over all."""
    rows = [share_bar("clean", result.clean, "clean")]
    rows += [share_bar(label, robust, "attack") for label, robust in _merged(result)]
    rows.append(share_bar("worst case, per image", result.robust, "held"))
    axis, ticks = shares()
    told = "; ".join(f"{row.label} {row.value}" for row in rows)
    drawing = bars(
        "attacks",
        "Accuracy under each attack",
        f"Bars with 95% intervals: {told}.",
        rows,
        axis=axis,
        ticks=ticks,
        name="accuracy, %",
    )
    return Figure(drawing=drawing)


def _merged(result: Result) -> list[tuple[str, Proportion]]:
    """Attacks in order; those in a row that come to the same figure are one bar."""
    found: list[tuple[str, Proportion]] = []
    for run, label in zip(result.attacks, attack_labels(result), strict=True):
        if found and found[-1][1] == run.robust:
            found[-1] = (f"{found[-1][0]}, {run.name}", run.robust)
        else:
            found.append((label, run.robust))
    return found


def ceiling(result: Result) -> Proportion:
    """Share of images that no counted adversarial and no clean error rules out.

    What is undecided may still be robust, so here, unlike in the headline figure, it
    counts for the model: the truth about these images cannot lie above.
    """
    return Proportion.of(result.robust.k + result.undecided, result.robust.n)


def bracket(result: Result, measured: Measurements) -> Figure | None:
    """Certified <= true <= attacked, on the evaluated images; None without a proof."""
    proof, top = measured.lipschitz, ceiling(result)
    if proof is None:
        return None
    bottom = proof.certified.value
    span = f"{percent(bottom)} to {percent(top.value)}"
    rows = [
        share_bar("attacked: truth not above", top, "attack"),
        Bar(
            label="true: in between",
            value=span,
            start=bottom,
            end=top.value,
            kind="band",
        ),
        share_bar("certified: nor below it", proof.certified, "proof"),
    ]
    if measured.bound is not None:
        estimate = measured.bound.estimated_robust
        rows.append(share_bar("margin test, estimated", estimate, "estimate"))
    axis, ticks = shares()
    drawing = bars(
        "bracket",
        "Certified, true and attacked accuracy",
        f"On these {top.n} images the true robust accuracy lies from {span}.",
        rows,
        axis=axis,
        ticks=ticks,
        name="robust accuracy, %",
    )
    return Figure(drawing=drawing)


def bound_bars(bound: BoundEstimate) -> Figure:
    """Clean loss, the worst loss found, and the two estimates above it."""
    figures = [
        ("clean loss", bound.clean_loss, "clean"),
        ("adversarial loss, strongest found", bound.adversarial_loss, "attack"),
        ("(B2), estimated", bound.b2, "estimate"),
        ("(B1), estimated", bound.b1, "estimate"),
    ]
    high = max(1e-9, *(loss for _, loss, _ in figures))
    axis = Axis(0.0, high * 1.02, EDGE, WIDTH - RIGHT)
    told = "; ".join(f"{label} {nats(loss)}" for label, loss, _ in figures)
    drawing = bars(
        "bound",
        "The bound on the adversarial loss",
        f"Mean cross-entropy in nats: {told}.",
        [
            Bar(label=label, value=nats(loss), end=loss, kind=kind)
            for label, loss, kind in figures
        ],
        axis=axis,
        ticks=axis.ticks(nice_step(axis.high), lambda value: f"{value:,g}"),
        name="mean cross-entropy, nats",
    )
    return Figure(drawing=drawing)


def limit_bars(bound: BoundEstimate) -> Figure:
    """How many images each thing limits."""
    n = bound.estimated_robust.n
    counts = {limit: bound.limits.get(limit, 0) for limit in Limit}
    kinds = {Limit.NONE: "held", Limit.FIT: "clean"}
    axis = Axis(0.0, float(n), EDGE, WIDTH - RIGHT)
    told = "; ".join(f"{LIMITS[limit]} {count}" for limit, count in counts.items())
    drawing = bars(
        "limits",
        "What limits each image",
        f"Of {n} images: {told}.",
        [
            Bar(
                label=LIMITS[limit],
                value=f"{count} of {n}",
                end=float(count),
                kind=kinds.get(limit, "fooled"),
            )
            for limit, count in counts.items()
        ],
        axis=axis,
        ticks=axis.ticks(max(1.0, nice_step(n)), lambda value: f"{value:,g}"),
        name="images",
    )
    return Figure(drawing=drawing)
