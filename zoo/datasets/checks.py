"""What pixels and labels may be; anything else is refused, never mended."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zoo.errors import UserError


def check_pixels(x: Tensor) -> None:
    """Raises `UserError` if a pixel is NaN or outside [0, 1]."""
    if not bool(x.isfinite().all()):
        raise UserError("images hold NaN or infinite pixels")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise UserError(
            f"pixels span [{low:.3g}, {high:.3g}], not [0, 1]; pass raw images divided "
            "by their largest value and let the model normalise them"
        )


def whole_labels(
    labels: npt.NDArray[Any], classes: int, name: str
) -> npt.NDArray[np.int64]:
    """Class numbers as int64, never rounded.

    Integers, booleans, and floats that are whole numbers are taken as they are.

    Args:
        labels: (N,).
        classes: Labels run from 0 to one below it.
        name: Of the dataset, for the message.

    Raises:
        UserError: another shape (one-hot rows, a column), no numbers, NaN, fractions,
            a number without a class; with the value and what to do.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise UserError(
            f"the labels of '{name}' have shape {labels.shape}, not (N,); "
            + _flattened(labels.shape, classes)
        )
    if labels.dtype.kind not in "biuf":
        raise UserError(
            f"the labels of '{name}' are of type {labels.dtype}, such as "
            f"{labels[:1].tolist()}; number the classes from 0"
        )
    fraction = np.flatnonzero(~np.isfinite(labels) | (np.trunc(labels) != labels))
    if len(fraction):
        at = fraction[0]
        raise UserError(
            f"label {at} of '{name}' is {labels[at]:g}, no whole number; labels are "
            "the numbers of the classes, from 0"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        low, high = labels.min().item(), labels.max().item()
        raise UserError(
            f"dataset '{name}' has labels from {low} to {high} but {classes} classes; "
            "labels are the numbers of the classes, from 0"
        )
    return labels.astype(np.int64)


def _flattened(shape: tuple[int, ...], classes: int) -> str:
    if len(shape) == 2 and shape[1] == 1:
        return "pass y[:, 0]"
    if len(shape) == 2 and shape[1] == classes:
        return "if the rows are one-hot, pass y.argmax(1)"
    return "give each image the number of its class"
