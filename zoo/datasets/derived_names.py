"""What tasks made of datasets are called, and how many classes they have.

See `zoo.datasets.derived`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zoo.errors import UserError, nearest

PLUS = "+"
ROTATION = "rotation"
SAME_LABELS = ("grey", "noise", "blur", "contrast")
VERSION = 1
"""Raised with any change of what a part does; see `zoo.task_version`."""
Groups = Mapping[str, Sequence[str]]

_DIGITS: dict[str, Groups] = {
    "parity": {"even": "02468", "odd": "13579"},
    "half": {"0 to 4": "01234", "5 to 9": "56789"},
    "loops": {"no loop": "12357", "a loop": "04689"},
}
_PHOTOGRAPHS: dict[str, Groups] = {
    "animals": {
        "vehicle": ("airplane", "automobile", "ship", "truck"),
        "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
    },
    "kinds": {
        "air or water": ("airplane", "ship"),
        "road": ("automobile", "truck"),
        "pet": ("cat", "dog"),
        "hoofed": ("deer", "horse"),
        "small and wild": ("bird", "frog"),
    },
}
GROUPINGS: dict[str, dict[str, Groups]] = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "mnist-5k": _DIGITS,
    "cifar10": _PHOTOGRAPHS,
    "cifar10-jpeg": _PHOTOGRAPHS,
    "fashion-mnist": {
        "parts": {
            "upper body": ("T-shirt/top", "Pullover", "Coat", "Shirt"),
            "whole body": ("Dress",),
            "legs": ("Trouser",),
            "feet": ("Sandal", "Sneaker", "Ankle boot"),
            "hand": ("Bag",),
        },
        "sleeves": {
            "long": ("Pullover", "Coat", "Shirt", "Dress"),
            "none or short": ("T-shirt/top", "Trouser"),
            "no clothing": ("Sandal", "Sneaker", "Bag", "Ankle boot"),
        },
    },
}
"""By base and part: classes by the group that they are in."""


def parts_of(name: str) -> tuple[str, list[str]]:
    """ "digits+parity+noise" as "digits" and its parts, the name without "@"."""
    base, *parts = name.split(PLUS)
    return base, parts


def class_count(name: str, classes: int) -> int:
    """Classes of the task that `name` is, checked.

    Args:
        name: BASE+PART+...
        classes: Of its base.

    Raises:
        UserError: a part that is not known, or that there is twice.
    """
    base, parts = parts_of(name)
    groupings = GROUPINGS.get(base, {})
    known = [*groupings, ROTATION, *SAME_LABELS]
    if len(set(parts)) < len(parts):
        raise UserError(f"dataset '{name}' names a part twice")
    labelling = [part for part in parts if part not in SAME_LABELS]
    if len(labelling) > 1:
        raise UserError(
            f"dataset '{name}' has two kinds of labels, {' and '.join(labelling)}; "
            "choose one"
        )
    for part in parts:
        if part not in known:
            raise UserError(
                f"dataset '{name}': no part '{part}'; {nearest(part, known)}"
            )
        if part in groupings:
            classes = len(groupings[part])
        elif part == ROTATION:
            classes = 4
    return classes
