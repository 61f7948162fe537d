"""Errors that people see, each with one message that says what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MANY = 20
"""Names that a message lists at most."""


class RobrepError(Exception):
    """Something went wrong that the caller cannot mend; commands exit with 1."""

    exit_code = 1


class VerificationError(RobrepError):
    """A claim does not hold when it is checked again."""


class Notice(UserWarning):
    """Something that people should know and that stops nothing."""


class UserError(RobrepError, ValueError):
    """Bad input: says what was wrong, with the value, and what to do. Exit code 2."""

    exit_code = 2


class MissingDatasetError(UserError):
    """The images that a claim speaks of are not on hand."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint: the closest known names, or, where none is close, all or some."""
    options = sorted(known)
    lowered = {option.lower(): option for option in options}
    close = get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(f"'{lowered[c]}'" for c in close) + "?"
    if len(options) > MANY:
        return f"known: {', '.join(options[:MANY])}, ... ({len(options)} in all)"
    return "known: " + (", ".join(options) if options else "none")
