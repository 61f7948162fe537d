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
_OWN = re.compile(r"((?<=imagefolder:)|(?<=imagelist:)|(?<=images:))[^,]*/(?=[^/,])")
_HUB = "hf-datasets:"
"""Before a folder that lies here, or a repository of the hub, which stays."""
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

    Absolute ones, those of images of one's own, and what lies here by that name.
    """
    left = _OWN.sub("", _FOLDERS.sub("", word))
    return ",".join(map(_without_folder, left.split(",")))


def _without_folder(word: str) -> str:
    """One of several between commas, for what lies here by that name."""
    before, equals, value = word.rpartition("=")
    kind = _HUB if value.startswith(_HUB) else ""
    where, colon, split = value.removeprefix(kind).partition(":" if kind else "\0")
    if not _lies_here(where):
        return word
    return before + equals + kind + Path(where).name + colon + split


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
