"""A map of clean and attacked features: two directions, the same for both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robrep_eval.probes.linear import features
from robrep_eval.report.figures import Figure, Key, percent
from robrep_eval.report.material import Material
from robrep_eval.report.seen import Seen
from robrep_eval.report.svg import (
    BOTTOM,
    RIGHT,
    TOP,
    WIDTH,
    Dot,
    Drawing,
    Line,
    Mark,
    Text,
    shorten,
)
from zoo.layout import Layout
from zoo.pages.axis import Axis

HEIGHT = 360
MAP_IMAGES = 400
"""Clean images on the map, evenly spaced, with the adversarials of those."""
COLOURED = 10
"""Classes that get a colour of their own."""
EDGE = 12


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Points of the map, in the two directions of largest variance."""

    rows: list[int]
    """Examples of the clean points."""
    clean: Tensor
    """(n, 2)."""
    moved: list[int]
    """For each attacked point the position of its clean point."""
    attacked: Tensor
    """(k, 2)."""
    shares: tuple[float, float]
    """Of the variance of the clean features, by direction."""


def cloud(
    material: Material, seen: Seen | None, *, device: str = "cpu"
) -> Cloud | None:
    """Features on two axes; None without weights or images, or where nothing varies.

    The directions are those of the clean features alone (PCA), so that the attack has
    no say in where one looks from.

    Raises:
        UserError: features that are NaN or infinite.
    """
    data, classifier, claims = material.data, material.classifier, material.claims
    if data is None or classifier is None or len(data) < 3:
        return None
    count = min(len(data), MAP_IMAGES)
    rows = torch.linspace(0, len(data) - 1, count).round().long()
    z = features(classifier.encoder, data.images(rows), Layout(device=device)).flatten(
        1
    )
    directions = _directions(z)
    if directions is None:
        return None
    basis, shares = directions
    place = {row: at for at, row in enumerate(rows.tolist())}
    firsts = seen.first() if seen is not None else {}
    pairs = [(place[row], at) for row, at in firsts.items() if row in place]
    attacked = torch.empty(0, 2, dtype=torch.float64)
    if pairs and claims is not None:
        images = claims.images[[at for _, at in pairs]]
        moved = features(classifier.encoder, images, Layout(device=device)).flatten(1)
        attacked = (moved.double() - z.double().mean(dim=0)) @ basis
    return Cloud(
        rows=rows.tolist(),
        clean=(z.double() - z.double().mean(dim=0)) @ basis,
        moved=[at for at, _ in pairs],
        attacked=attacked,
        shares=shares,
    )


def _directions(z: Tensor) -> tuple[Tensor, tuple[float, float]] | None:
    """The two first principal directions (d, 2) and their shares of the variance."""
    from sklearn.decomposition import PCA

    if z.shape[1] < 2 or not float(z.double().var(dim=0).sum()):
        return None
    pca = PCA(n_components=2, svd_solver="full").fit(z.double().numpy())
    first, second = pca.explained_variance_ratio_.tolist()
    return torch.from_numpy(pca.components_.T.copy()), (first, second)


def map_figure(material: Material, points: Cloud) -> Figure:
    """Clean features as dots, attacked ones as rings, a line between the two."""
    x, y = _plane(points)
    labels = [material.result.examples.label[row] for row in points.rows]
    coloured = material.result.dataset.classes <= COLOURED
    kinds = [f"class-{label}" if coloured else "plain" for label in labels]
    marks: list[Mark] = []
    for at, (px, py) in zip(points.moved, points.attacked.tolist(), strict=True):
        cx, cy = points.clean[at].tolist()
        ring = kinds[at] if coloured else "struck"
        marks.append(Line(x(cx), y(cy), x(px), y(py), f"arrow {ring}"))
        marks.append(Dot(x(px), y(py), 3, f"ring {ring}", _told(material, points, at)))
    for at, (px, py) in enumerate(points.clean.tolist()):
        told = _told(material, points, at)
        marks.append(Dot(x(px), y(py), 2.4, f"dot {kinds[at]}", told))
    if coloured:
        marks += _class_names(material, points, labels, x, y)
    first, second = points.shares
    name = "principal direction"
    marks += [
        Line(EDGE, y.start, x.end, y.start, "base"),
        Line(EDGE, y.start, EDGE, y.end, "base"),
        Text(x.end, y.start + 16, f"1st {name}: {percent(first)}", "end", "axis"),
        Text(EDGE, TOP + 2, f"2nd {name}: {percent(second)}", "start", "axis"),
    ]
    return Figure(
        drawing=Drawing(
            key="map",
            title="Clean and attacked features",
            description=f"{len(points.rows)} clean images and {len(points.moved)} "
            "adversarials in the two directions in which clean features vary most; "
            f"these hold {percent(first + second)} of the variance.",
            height=HEIGHT,
            marks=marks,
        ),
        keys=[
            Key(kind="dot", text=f"clean image ({len(points.rows)})"),
            Key(kind="ring", text=f"after the attack ({len(points.moved)})"),
        ],
    )


def _told(material: Material, points: Cloud, at: int) -> str:
    row = points.rows[at]
    examples = material.result.examples
    name = material.class_name(examples.label[row])
    return f"image {examples.index[row]}, class {name}: {examples.verdict[row].value}"


def _plane(points: Cloud) -> tuple[Axis, Axis]:
    """Both directions at one scale, centred, so that distances can be compared."""
    both = torch.cat([points.clean, points.attacked])
    low, high = both.amin(dim=0), both.amax(dim=0)
    middle, half = (low + high) / 2, (high - low) / 2
    width, height = WIDTH - RIGHT - EDGE, HEIGHT - BOTTOM - TOP - 14
    unit = max(float(half[0]) / width, float(half[1]) / height) * 2 * 1.04
    spans = (unit * width / 2, unit * height / 2)
    (cx, cy), (sx, sy) = middle.tolist(), spans
    return (
        Axis(cx - sx, cx + sx, EDGE, WIDTH - RIGHT),
        Axis(cy - sy, cy + sy, HEIGHT - BOTTOM + 14, TOP + 14),
    )


def _class_names(
    material: Material, points: Cloud, labels: list[int], x: Axis, y: Axis
) -> list[Mark]:
    """Each class named at the middle of its clean points."""
    marks: list[Mark] = []
    for label in sorted(set(labels)):
        own = points.clean[[at for at, found in enumerate(labels) if found == label]]
        cx, cy = own.median(dim=0).values.tolist()
        name = shorten(material.class_name(label), 14)
        room = math.ceil(len(name) * 4)
        at = min(max(x(cx), EDGE + room), WIDTH - RIGHT - room)
        marks.append(Text(at, y(cy) + 4, name, "middle", f"class class-{label}"))
    return marks
