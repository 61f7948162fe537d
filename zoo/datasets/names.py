"""How datasets are called: NAME, imagefolder:PATH, images:PATH, and what follows.

NAME@CxHxW brings images to a shape. More may follow, each part after a dash, and is
part of what the dataset is: `rSIDE` (shorter side before the middle is cut out),
`bicubic` or `bilinear`, `testN` (per cent of images without splits that are for test),
`seedN` (of that choice). In records, people's own images are called without their path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo import budgets
from zoo.errors import UserError, nearest

FOLDER = "imagefolder:"
LIST = "imagelist:"
IMAGES = "images:"
"""Of images without labels."""
HUB = "hf-datasets:"
OWN = (FOLDER, LIST, IMAGES)
"""Begin the names of people's own images."""
PLACES = (*OWN, HUB)
"""Begin names that say where images are, so open a folder or fetch a repository: what
the user names does, what a record of others names does not."""
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
MARK = "@"
INTERPOLATIONS = ("bicubic", "bilinear")
OPTIONS = ("resize", "crop", "interpolation", "test_share", "split_seed")
"""Options that become part of a dataset's name."""
Shape = tuple[int, int, int]
"""(C, H, W)."""
_PARTS = (
    r"(?P<shape>[13]x[1-9][0-9]{0,3}x[1-9][0-9]{0,3})",
    r"r(?P<resize>[1-9][0-9]{0,4})",
    r"(?P<interpolation>bicubic|bilinear)",
    r"test(?P<share>[1-9][0-9]?)",
    r"seed(?P<seed>[0-9]{1,9})",
)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What stands after the mark: how the images of a dataset are read."""

    shape: Shape | None = None
    resize: int | None = None
    """Pixels of the shorter side before the middle is cut out."""
    interpolation: str | None = None
    share: int | None = None
    """Per cent of the images of a folder or list without splits that are for test."""
    seed: int | None = None
    """Of that choice; 0 if it is not said."""

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape or ()))
        resize = "" if self.resize is None else f"r{self.resize}"
        share = "" if self.share is None else f"test{self.share}"
        seed = "" if self.seed is None else f"seed{self.seed}"
        parts = (shape, resize, self.interpolation, share, seed)
        return "-".join(part for part in parts if part)


def split_name(name: str) -> tuple[str, Reading | None]:
    """ "digits@1x28x28" as "digits" and how it is read; None without "@".

    The path of people's own images may hold the mark, so there only a reading counts.

    Raises:
        UserError: what follows the mark is no reading.
    """
    base, mark, text = name.rpartition(MARK)
    if not mark:
        return name, None
    found = _parse(text)
    if found is None and name.startswith(OWN):
        return name, None
    if found is None:
        raise no_shape(text, name)
    with budgets.naming(f"dataset '{name}'"):
        if found.shape is not None:
            budgets.check_shape(found.shape)
    _check(found, name)
    return base, found


def no_shape(text: str, name: str) -> UserError:
    """What follows the mark in a name, where that is no reading."""
    return UserError(
        f"'{text}' in dataset '{name}' is no shape; write CxHxW with 1 or 3 channels, "
        "such as 3x32x32, then, if need be, -r256 and -bicubic or -bilinear"
    )


def _parse(text: str) -> Reading | None:
    """Parts in their order, each at most once, at least one."""
    pattern = "".join(rf"(?:(?:^|-){part})?" for part in _PARTS)
    found = re.fullmatch(pattern, text) if text else None
    if found is None:
        return None
    shape, interpolation = found["shape"], found["interpolation"]
    numbers = {
        name: None if found[name] is None else int(found[name])
        for name in ("resize", "share", "seed")
    }
    channels, height, width = map(int, shape.split("x")) if shape else (0, 0, 0)
    return Reading(
        shape=(channels, height, width) if shape else None,
        interpolation=interpolation,
        **numbers,
    )


def _check(reading: Reading, name: str) -> None:
    if reading.share is None and reading.seed is not None:
        raise UserError(f"'{name}' has a seed, but no share of test images")
    if reading.share is not None and name.startswith(IMAGES):
        raise UserError(
            f"'{name}' has no labels, so none of it is for test; leave the share of "
            f"test images out, or name images in class folders ({FOLDER}PATH)"
        )
    if reading.share is not None and not name.startswith(OWN):
        raise UserError(f"'{name}' has splits of its own; a share is for own images")
    if reading.shape is None:
        if reading.resize is not None or reading.interpolation is not None:
            raise UserError(f"'{name}' is to be resized; say to what size (--crop)")
    elif reading.resize is not None and reading.resize < min(reading.shape[1:]):
        raise UserError(
            f"'{name}' resizes the shorter side to {reading.resize}, less than what "
            f"is cut out of it ({reading.shape[1]}x{reading.shape[2]})"
        )


def shaped_name(name: str, how: Shape | Reading) -> str:
    """NAME@CxHxW; what `name` has already is replaced, by a shape only the shape."""
    base, before = split_name(name)
    if not isinstance(how, Reading):
        how = replace(before or Reading(), shape=how)
    return f"{base}{MARK}{how}"


def with_options(name: str, options: Mapping[str, Any]) -> str:
    """The name with what `OPTIONS` say, where they say something.

    Args:
        name: As typed.
        options: resize and crop in pixels, test_share as 0.2 or "20%", by those names.

    Raises:
        UserError: a value that makes no sense, or differs from what the name says.
    """
    given = {key: options[key] for key in OPTIONS if options.get(key) is not None}
    if not given:
        return name
    base, before = split_name(name)
    before = before or Reading()
    said = dict(_field(key, value, before) for key, value in given.items())
    for key, value in said.items():
        if getattr(before, key) not in (None, value):
            raise UserError(f"'{name}' and the options beside it differ: {key} {value}")
    whole = f"{base}{MARK}{replace(before, **said)}"
    split_name(whole)
    return whole


def _field(option: str, value: Any, before: Reading) -> tuple[str, Any]:
    """The field of `Reading` that an option sets, and its value."""
    if option == "test_share":
        return "share", _per_cent(value)
    if option == "interpolation":
        if str(value).lower() not in INTERPOLATIONS:
            hint = nearest(str(value), INTERPOLATIONS)
            raise UserError(f"unknown interpolation '{value}'; {hint}")
        return option, str(value).lower()
    low, high = (0, 10**9 - 1) if option == "split_seed" else (1, 9999)
    flag = option.replace("_", "-")
    if not (isinstance(value, int) and low <= value <= high):
        raise UserError(f"--{flag} must be {low} to {high}, not {value}")
    if option == "split_seed":
        return "seed", value
    if option == "resize":
        return option, value
    return "shape", ((before.shape or (3,))[0], value, value)


def _per_cent(share: float | str) -> int:
    text = str(share).strip()
    try:
        value = float(text[:-1]) if text.endswith("%") else 100 * float(text)
    except ValueError:
        value = 0.0
    if not (1 <= value <= 99 and abs(value - round(value)) < 1e-9):
        raise UserError(
            f"--test-share '{share}' is no share of test images; write 20% or 0.2, in "
            "whole per cent from 1 to 99"
        )
    return round(value)


def parts(base: str) -> tuple[str, str, str]:
    """Of a name in `PLACES`: what it begins with, where images are, and ":SPLIT" or ""
    (of hf-datasets alone)."""
    kind = next(kind for kind in PLACES if base.startswith(kind))
    where = base.removeprefix(kind)
    if kind != HUB:
        return kind, where, ""
    where, colon, split = where.partition(":")
    return kind, where, colon + split


def check_own_name(name: str) -> str:
    """A name that a user gives to images; raises `UserError` if it is none."""
    if not re.fullmatch(r"\w[\w .()+-]{0,63}", name) or name != name.strip():
        raise UserError(
            f"'{name[:80]}' cannot name a dataset; use letters, digits, '.', '_', '-' "
            "and spaces, 64 at most: a name holds no path"
        )
    return name


def recorded_name(name: str, called: str | None = None) -> str:
    """The name that records have: imagefolder:NAME for imagefolder:PATH, and alike for
    lists and for folders of hf-datasets.

    Args:
        name: As typed.
        called: NAME, by default the last part of the path.
    """
    base, reading = split_name(name)
    if not base.startswith(PLACES):
        return name
    kind, path, chosen = parts(base)
    if kind == HUB and REPOSITORY.fullmatch(path) and not Path(path).exists():
        return name
    last = called or Path(path).name
    if last in ("", ".."):
        last = Path(path).resolve().name or "images"
    short = f"{kind}{last}{chosen}"
    return shaped_name(short, reading) if reading else short
