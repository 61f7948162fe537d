"""How to get a package that robrep can use and does not need."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires


def how_to_get(extra: str) -> str:
    """A command that installs what an extra names, from a checkout too.

    Args:
        extra: As in `pip install robrep[EXTRA]`, of which no index need know.
    """
    try:
        lines = requires("robrep") or []
    except PackageNotFoundError:
        lines = []
    mark = re.compile(rf"""extra == ['"]{re.escape(extra)}['"]""")
    found = [line.split(";")[0].strip() for line in lines if mark.search(line)]
    names = " ".join(f"'{name}'" for name in found or [f"robrep[{extra}]"])
    return f"pip install {names}"
