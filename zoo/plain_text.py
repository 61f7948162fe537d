"""Text of other people, made harmless before it reaches a terminal or a record.

Control characters could steer the terminal, marks of writing direction could make a
line read as another, addresses can hold passwords, and paths tell about their owner.
"""

from __future__ import annotations

import re

HIDDEN = "***"
_USER = re.compile(r"(?<=://)[^/\s'\"@]+@")
_QUERY = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"]+")
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
    """A word of a command in which each absolute path has its last name alone."""
    return _FOLDERS.sub("", word)
