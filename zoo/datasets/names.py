"""How datasets are called: NAME, imagefolder:PATH, and NAME@CxHxW for another shape.

In records the images of a folder are called imagefolder:NAME, without their path.
"""

from __future__ import annotations

import re
from pathlib import Path

from zoo import budgets
from zoo.errors import UserError

FOLDER = "imagefolder:"
MARK = "@"
Shape = tuple[int, int, int]
"""(C, H, W)."""


def split_name(name: str) -> tuple[str, Shape | None]:
    """ "digits@1x28x28" as ("digits", (1, 28, 28)); the shape is None without "@".

    The path of an image folder may hold the mark, so there only a shape counts.

    Raises:
        UserError: what follows the mark is no shape.
    """
    base, mark, text = name.rpartition(MARK)
    if not mark:
        return name, None
    found = re.fullmatch(r"([13])x([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text)
    if found is None and name.startswith(FOLDER):
        return name, None
    if found is None:
        raise UserError(
            f"'{text}' in dataset '{name}' is no shape; write CxHxW with 1 or 3 "
            "channels, such as 3x32x32"
        )
    channels, height, width = map(int, found.groups())
    with budgets.naming(f"dataset '{name}'"):
        budgets.check_shape((channels, height, width))
    return base, (channels, height, width)


def shaped_name(name: str, shape: Shape) -> str:
    """NAME@CxHxW; a shape that `name` has already is replaced."""
    return f"{split_name(name)[0]}{MARK}{'x'.join(map(str, shape))}"


def check_own_name(name: str) -> str:
    """A name that a user gives to images; raises `UserError` if it is none."""
    if not re.fullmatch(r"\w[\w .()+-]{0,63}", name) or name != name.strip():
        raise UserError(
            f"'{name[:80]}' cannot name a dataset; use letters, digits, '.', '_', '-' "
            "and spaces, 64 at most: a name holds no path"
        )
    return name


def recorded_name(name: str, called: str | None = None) -> str:
    """The name that records have: imagefolder:NAME for imagefolder:PATH.

    Args:
        name: As typed.
        called: NAME, by default the last part of the path.
    """
    base, shape = split_name(name)
    if not base.startswith(FOLDER):
        return name
    path = base.removeprefix(FOLDER)
    last = called or Path(path).name
    if last in ("", ".."):
        last = Path(path).resolve().name or "images"
    return shaped_name(FOLDER + last, shape) if shape else FOLDER + last
