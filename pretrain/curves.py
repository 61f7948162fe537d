"""A picture of a run: loss parts, and figures of the quick looks, over epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.files import atomic

FEATURES = ("quantile", "drift", "attacked")
"""Of looks without labels."""


def draw(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Writes an SVG, the same bytes for the same lines.

    Args:
        lines: As in metrics.jsonl.
        path: Replaced atomically.
        title: Of the picture.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for name in sorted({key for line in lines for key in line if _is_part(key)}):
        _plot(losses, lines, name, name.removeprefix("loss/"), 1.0)
    losses.set(xlabel="epoch", ylabel="loss part", title=title)
    if any(f"held_out/{FEATURES[0]}" in line for line in lines):
        for name in FEATURES:
            _plot(accuracies, lines, f"held_out/{name}", name, 1.0)
        accuracies.set(xlabel="epoch", ylabel="held-out, without labels")
    else:
        for name, label in (("held_out/clean", "clean"), ("held_out/robust", "PGD")):
            _plot(accuracies, lines, name, label, 100.0)
        accuracies.set(xlabel="epoch", ylabel="held-out accuracy, %", ylim=(0, 100))
    for axis in (losses, accuracies):
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(frameon=False)
    with (
        matplotlib.rc_context({"svg.hashsalt": "robrep"}),
        atomic(path) as temporary,
    ):
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _is_part(key: str) -> bool:
    return key.startswith("loss/")


def _plot(
    axis: Any, lines: list[dict[str, Any]], key: str, label: str, scale: float
) -> None:
    points = [(x["epoch"], x[key] * scale) for x in lines if x.get(key) is not None]
    if points:
        epochs, values = zip(*points, strict=True)
        axis.plot(epochs, values, label=label, marker="." if len(points) < 40 else "")
