"""Numbers as people write them: the digits 0 to 9, nothing else.

Python's own `int` and `float` also read digits of other scripts, "1_000" and "nan",
which here are slips of the keyboard or of a program.
"""

from __future__ import annotations

import re

_WHOLE = re.compile(r"[+-]?[0-9]{1,100}")
_DECIMAL = re.compile(
    r"[+-]?([0-9]{1,100}\.?[0-9]{0,100}|\.[0-9]{1,100})(e[+-]?[0-9]{1,3})?"
)


def whole(text: str) -> int:
    """ "12" or "-3"; raises `ValueError` for anything else."""
    if not _WHOLE.fullmatch(text.strip(" ")):
        raise ValueError(f"'{text}' is no whole number")
    return int(text)


def decimal(text: str) -> float:
    """ "12", ".5" or "1e-3", finite; raises `ValueError` for anything else."""
    if not _DECIMAL.fullmatch(text.strip(" ").lower()):
        raise ValueError(f"'{text}' is no number")
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"'{text}' is too large")
    return value
