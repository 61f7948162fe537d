"""Text of other people, made harmless before it reaches a terminal or a record.

Control characters could steer the terminal, marks of writing direction could make a
line read as another, addresses can hold passwords, and paths tell about their owner.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

HIDDEN = "***"
_USER = re.compile(r"(?<=://)[^/\s'\"@]+@")
_QUERY = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"]+")
LOCAL_OPTIONS = ("--output", "--data-dir")
"""They say where things lie, and decide no figure."""
_OWN = re.compile(r"(?<=imagefolder:)[^,]*/(?=[^/,])")
_FOLDERS = re.compile(r"(^|(?<=[=:,]))(?!//)[~/][^,]*/(?=[^/,])")


def plain(text: str) -> str:
    """Lines as they are, without characters that do something, and without secrets."""
    shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    return without_secrets(shown)


def plain_line(text: str) -> str:
    """The same on one line."""
    return " ".join(plain(text).split("\n"))


def without_secrets(text: str) -> str:
    """Addresses without user, password and query, which may hold a token."""
    return _QUERY.sub(rf"\1?{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def without_folders(word: str) -> str:
    """A word of a command in which each path has its last name alone.

    Absolute ones, those of image folders, and what lies here by that name.
    """
    left = _OWN.sub("", _FOLDERS.sub("", word))
    before, equals, value = left.rpartition("=")
    return before + equals + Path(value).name if _lies_here(value) else left


def _lies_here(value: str) -> bool:
    try:
        return "/" in value and Path(value).exists()
    except (OSError, ValueError):  # too long, or no path at all
        return False


def recorded_command(words: Iterable[str]) -> list[str]:
    """A command for records: without what is of this machine alone.

    Args:
        words: As typed.
    """
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word.partition("=")[0] not in LOCAL_OPTIONS:
            kept.append(without_folders(word))
        skip = not skip and word in LOCAL_OPTIONS
    return kept
