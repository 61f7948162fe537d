"""Tasks made of a dataset: BASE+PART, such as fashion-mnist+parts or digits+noise.

Parts follow one another, in the order in which they are written, before "@SHAPE":

GROUPING      classes put together (digits+parity), see `GROUPINGS`
rotation      each image turned by 0, 90, 180 or 270 degrees; the label is by which
grey          colour left out, and its channels kept
noise, blur, contrast     each image corrupted in one fixed way

All is integer arithmetic on 8-bit pixels, so that every machine has the same images to
the bit. Where the base is sorted by class, the images come in one drawn order, of which
the first are of all classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from zoo.datasets.base import Dataset
from zoo.datasets.derived_names import GROUPINGS, ROTATION, parts_of
from zoo.errors import UserError

Pixels = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Change = Callable[[npt.NDArray[np.int32], Integers], npt.NDArray[np.int32]]
"""Maps images (n, C, H, W), 0 to 255, and their positions to such images."""
SALT = 1_000_003
"""Of drawn orders, turns and noise."""
NOISE = 20
"""Standard deviation in 255ths, about."""


def derive(data: Dataset, name: str) -> Dataset:
    """The dataset that `name` makes of its base.

    Args:
        data: The whole split of the base.
        name: BASE+PART+..., as `zoo.datasets.derived_names` checked it.

    Raises:
        UserError: images that are not square cannot be turned.
    """
    base, parts = parts_of(name)
    order = np.arange(len(data))
    labels, classes = data.labels.numpy(), data.classes
    if bool((data.labels.diff() >= 0).all()):
        order = np.random.default_rng(SALT).permutation(len(data))
        labels = labels[order]
    turns = _turns(len(data))
    changes: list[Change] = []
    for part in parts:
        if part in GROUPINGS.get(base, {}):
            labels, classes = _grouped(labels, classes, GROUPINGS[base][part])
        elif part == ROTATION:
            if data.shape[1] != data.shape[2]:
                raise UserError(f"'{name}': images of {data.shape} cannot be turned")
            labels, classes = turns, ("0", "90", "180", "270")
            changes.append(lambda x, at: _turned(x, turns[at]))
        else:
            changes.append(CHANGES[part])

    def fetch(at: Integers) -> Pixels:
        at = np.atleast_1d(at)
        x = _bytes(data.integers(order[at].tolist()).numpy(), data.levels)
        for change in changes:
            x = change(x, at)
        return x.astype(np.uint8)

    return Dataset(
        name=name,
        split=data.split,
        fetch=fetch,
        labels=labels,
        classes=classes,
        shape=data.shape,
        notes=data.notes,
    )


def _bytes(x: npt.NDArray[np.generic], levels: int) -> npt.NDArray[np.int32]:
    """Pixels of 0 to `levels` as whole numbers of 0 to 255, halves up."""
    if x.dtype.kind == "f":
        return np.asarray(np.rint(x.astype(np.float64) * 255 / levels), np.int32)
    return np.asarray((x.astype(np.int64) * 510 + levels) // (2 * levels), np.int32)


def _grouped(
    labels: Integers, classes: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> tuple[Integers, tuple[str, ...]]:
    """Labels of groups; every class is in one of them."""
    of = {name: at for at, names in enumerate(groups.values()) for name in names}
    table = np.array([of[name] for name in classes], np.int64)
    return table[labels], tuple(groups)


def _turns(count: int) -> Integers:
    return np.random.default_rng(SALT + 1).integers(0, 4, count)


def _turned(x: npt.NDArray[np.int32], turns: Integers) -> npt.NDArray[np.int32]:
    """Each image turned by so many right angles, against the clock."""
    found = x.copy()
    for turn in range(1, 4):
        found[turns == turn] = np.rot90(x[turns == turn], turn, axes=(2, 3))
    return found


def _grey(x: npt.NDArray[np.int32], at: Integers) -> npt.NDArray[np.int32]:
    """Luma of ITU-R BT.601, in all channels."""
    if x.shape[1] != 3:
        return x
    luma = (299 * x[:, :1] + 587 * x[:, 1:2] + 114 * x[:, 2:] + 500) // 1000
    return np.asarray(np.repeat(luma, 3, axis=1))


def _noise(x: npt.NDArray[np.int32], at: Integers) -> npt.NDArray[np.int32]:
    """Nearly Gaussian: twelve uniform bytes, added; drawn for each position."""
    found = np.empty_like(x)
    for row, position in enumerate(at.tolist()):
        draw = np.random.default_rng([SALT, position])
        drawn = draw.integers(0, 256, (12, *x.shape[1:])).sum(axis=0) - 1530
        found[row] = x[row] + (drawn * NOISE + 128) // 256
    return found.clip(0, 255)


def _blur(x: npt.NDArray[np.int32], at: Integers) -> npt.NDArray[np.int32]:
    """Weights 1, 4, 6, 4, 1 along both sides; beyond the edge lies the edge."""
    for axis in (2, 3):
        width = [(0, 0)] * 4
        width[axis] = (2, 2)
        padded, side = np.pad(x, width, mode="edge"), x.shape[axis]
        steps = [padded.take(range(k, k + side), axis) for k in range(5)]
        total = steps[0] + 4 * steps[1] + 6 * steps[2] + 4 * steps[3] + steps[4]
        x = (total + 8) // 16
    return x


def _contrast(x: npt.NDArray[np.int32], at: Integers) -> npt.NDArray[np.int32]:
    """Two fifths of the distance from the middle."""
    return 128 + (x - 128) * 2 // 5


CHANGES: dict[str, Change] = {
    "grey": _grey,
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
}
