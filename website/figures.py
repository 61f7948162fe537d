"""The figures of the pages: `python -m website.figures` draws them into docs/assets/.

Numbers come from the records of embedded entries, never from this file; drawings
without numbers say how things hang together.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo import datasets
from zoo.records import Result
from zoo.result_file import read_result

ASSETS = Path(__file__).parents[1] / "docs" / "assets"
EMBEDDED = Path(__file__).parents[1] / "zoo" / "embedded"
DIGITS = "digits-linf-0.1-slf"
STYLE: Any = {
    "svg.hashsalt": "robrep",  # the same file each time
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",  # also where the page is dark
}
INK, BLUE, ORANGE, GREEN, GREY = "#1b1f24", "#0b5c8a", "#b3500a", "#1f6e43", "#6b7280"


def record(encoder: str, entry: str = DIGITS) -> Result:
    """The record of an embedded entry."""
    return read_result(EMBEDDED / encoder / "entries" / entry)


def curve() -> Figure:
    """Accuracy under PGD against the radius, two encoders of digits."""
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    for name, colour in (("tarrl-digits", BLUE), ("simclr-digits", ORANGE)):
        found = record(name).measurements.eps_curve
        assert found is not None
        points = [(point.eps, point.robust) for point in found.points]
        at = [eps for eps, _ in points]
        middle = [100 * share.value for _, share in points]
        axes.plot(at, middle, "o-", color=colour, label=name)
        axes.fill_between(
            at,
            [100 * share.low for _, share in points],
            [100 * share.high for _, share in points],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.axvline(0.1, color=GREY, linestyle=":", label="radius of the evaluation")
    axes.set(xlabel="radius, Linf", ylabel="accuracy under PGD-40, %", ylim=(0, 101))
    axes.legend(frameon=False)
    return figure


def chain() -> Figure:
    """What is left after each attack of AutoAttack, and what a single one would say."""
    figure, axes = plt.subplots(figsize=(6.4, 2.9))
    name, entry = "prototypes-fashion-mnist", "fashion-mnist-linf-0.1-slf"
    result = record(name, entry)
    names = ["clean", *(f"after {run.name}" for run in result.attacks)]
    shares = [result.clean, *(run.robust for run in result.attacks)]
    _bars(axes, names, [100 * share.value for share in shares], [BLUE, *[ORANGE] * 4])
    axes.set(xlabel=f"images still right, %  ({name}, {result.dataset.n} images)")
    axes.set_xlim(0, 100)
    return figure


def bound() -> Figure:
    """Losses and bounds of four encoders, on one logarithmic axis."""
    figure, axes = plt.subplots(figsize=(6.4, 3.0))
    names = ["pgd-at-digits", "tarrl-digits", "rocl-digits", "simclr-digits"]
    kinds = (
        ("clean_loss", "clean loss", GREEN, "o"),
        ("adversarial_loss", "loss under attack", ORANGE, "s"),
        ("b2", "B2", BLUE, "D"),
        ("b1", "B1", GREY, "^"),
    )
    for field, label, colour, marker in kinds:
        found = [getattr(record(name).measurements.bound, field) for name in names]
        axes.plot(found, range(len(names)), marker, color=colour, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.set(xlabel="mean cross-entropy, nats (logarithmic)")
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, 1.2), ncols=4)
    return figure


def adversarials() -> Figure:
    """Four digits, the change, and what the classifier then says."""
    from zoo.classifier import predict
    from zoo.collection.entries import load_classifier, read_entry
    from zoo.collection.opening import open_source
    from zoo.deltas import unpack
    from zoo.files import read_tensors

    source = open_source("embedded")
    row = source.find("simclr-digits")
    published = read_entry(source, row, DIGITS)
    data = datasets.load("digits", "test")
    packed = EMBEDDED / "simclr-digits" / "entries" / DIGITS / "deltas.safetensors"
    claims = unpack(read_tensors(packed)[0], data)
    images = claims.images[:]
    said = predict(load_classifier(source, published), images).argmax(dim=1)
    figure, grid = plt.subplots(2, 4, figsize=(6.4, 3.4))
    for at, (top, bottom) in enumerate(grid.T):
        place = int(claims.positions[at])
        clean, label = data.images([place])[0, 0], int(data.labels[place])
        _image(top, clean.numpy(), f"a {label}, seen as {label}")
        changed = images[at, 0].numpy()
        _image(bottom, changed, f"attacked: seen as {int(said[at])}")
    return figure


def _image(axes: Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _bars(
    axes: Axes, names: list[str], values: list[float], colours: list[str]
) -> None:
    axes.barh(names, values, color=colours, height=0.6)
    for at, value in enumerate(values):
        axes.text(value - 1, at, f"{value:.1f}", va="center", ha="right", color="white")
    axes.invert_yaxis()


def bracket() -> Figure:
    """Certified, true, attacked: the one case where both ends are measured."""
    result = record("lipschitz-digits", "digits-l2-0.25-slf")
    proof = result.measurements.lipschitz
    assert proof is not None
    low, high = 100 * proof.certified.value, 100 * result.robust.value
    figure, axes = plt.subplots(figsize=(7.0, 1.7))
    axes.barh([0], [low], color=GREEN, height=0.4)
    axes.barh([0], [high - low], left=[low], color="#f2c14e", height=0.4)
    axes.barh([0], [100 - high], left=[high], color=ORANGE, height=0.4)
    for x, text, colour in (
        (low / 2, f"certified: {low:.1f}%", GREEN),
        ((low + high) / 2, "unknown", INK),
        ((high + 100) / 2 + 1, f"fooled: {100 - high:.1f}%", ORANGE),
    ):
        axes.text(x, 0.3, text, ha="center", color=colour, fontsize=9)
    axes.set(xlabel="images, %  (zoo:lipschitz-digits, L2 0.25)", xlim=(0, 100))
    axes.set_yticks([])
    return figure


def probes() -> Figure:
    """Which parts SLF, ALF and AFF train, and on what."""
    figure, axes = plt.subplots(figsize=(6.4, 2.6))
    axes.set(xlim=(0, 10), ylim=(-0.4, 3.4))
    axes.set_axis_off()
    rows = (
        ("SLF", "clean images", False),
        ("ALF", "attacked images", False),
        ("AFF", "clean and attacked", True),
    )
    for y, (name, images, trained) in zip((2.6, 1.4, 0.2), rows, strict=True):
        axes.text(0, y, name, weight="bold", va="center")
        _box(axes, 2.5, y, images, "white")
        _box(axes, 5.8, y, "encoder" if trained else "encoder, frozen",
             "#fbe3cf" if trained else "#e5e7eb")  # fmt: skip
        _box(axes, 8.8, y, "linear head", "#fbe3cf")
        _arrow(axes, 3.95, 4.75, y)
        _arrow(axes, 6.85, 7.85, y)
    axes.text(5.8, -0.55, "orange: trained", ha="center", color=ORANGE, fontsize=9)
    return figure


def evidence() -> Figure:
    """An attack proposes, separate code decides, anyone repeats it."""
    figure, axes = plt.subplots(figsize=(6.4, 1.6))
    axes.set(xlim=(0, 10), ylim=(0, 2))
    axes.set_axis_off()
    steps = ("attack\nproposes", "evidence\ndecides", "record and\nadversarials",
             "verify:\nanyone")  # fmt: skip
    for at, text in enumerate(steps):
        _box(axes, 1.2 + 2.55 * at, 1.2, text, "#e5e7eb" if at != 1 else "#fbe3cf")
        if at:
            _arrow(axes, 2.55 * at - 0.5, 2.55 * at + 0.15, 1.2)
    axes.text(3.75, 0.25, "finite, in [0, 1], in the ball,\nmisclassified twice",
              ha="center", va="center", fontsize=8)  # fmt: skip
    return figure


def _box(axes: Axes, x: float, y: float, text: str, fill: str) -> None:
    frame = {"boxstyle": "round,pad=0.4", "facecolor": fill, "edgecolor": GREY}
    axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=frame)


def _arrow(axes: Axes, start: float, end: float, y: float) -> None:
    axes.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "->"})


FIGURES: dict[str, Callable[[], Figure]] = {
    "adversarials": adversarials,
    "bound": bound,
    "bracket": bracket,
    "chain": chain,
    "curve": curve,
    "evidence": evidence,
    "probes": probes,
}


def draw(folder: Path) -> list[Path]:
    """Draws every figure as FOLDER/NAME.svg; the paths."""
    mpl.use("svg")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(STYLE):
        for name, make in FIGURES.items():
            figure = make()
            path = folder / f"{name}.svg"
            figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
            plt.close(figure)
            paths.append(path)
    return paths


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ASSETS)
