"""Links words of the glossary at their first use on each page of the site."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PAGE = "reference/glossary.md"
FILE = Path(__file__).parents[1] / "docs" / PAGE
COMMON = frozenset(
    (
        *("attack", "doubtful", "entry", "grid", "interval", "limited by", "method"),
        *("price", "radius", "result", "source", "stable", "transfer", "wide"),
        *("drift", "head", "multiplier", "penalty", "seed", "sound", "views"),
        *("b64", "k2", "undecided", "passes", "teacher", "spectral", "prototypes"),
    )
)
"""Words that are used in their everyday sense too, or as parts of names: a page links
them itself where it matters."""
_APART = re.compile(
    r"^(?:```+|~~~+)[\s\S]*?^(?:```+|~~~+)\s*$"  # blocks of code
    r"|`[^`\n]*`"  # code in a line
    r"|!?\[(?:[^\[\]]|\[[^\]]*\])*\]\([^)]*\)"  # links and pictures
    r"|^#.*$|^:::.*$|^ {4,}.*$|<[^>\n]+>|^\|.*\|\s*$",  # headings, directives and
    # what belongs to them, tags, tables
    re.MULTILINE,
)


@cache
def words() -> dict[str, str]:
    """Anchor by word, as the glossary's headings have them."""
    heads = re.findall(r"^### (.+)$", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    found = {}
    for head in heads:
        anchor = re.sub(r"[^\w\s-]", "", head).strip().lower().replace(" ", "-")
        for word in head.split(", "):
            if word.lower() not in COMMON:
                found[word] = anchor
    return found


def linked(text: str, page: str) -> str:
    """The page with a link to the glossary at each word's first use in its prose.

    Code, headings, tables, and what is a link already, stay as they are; a word that
    the page itself links to the glossary is left alone.

    Args:
        text: Markdown.
        page: Its place below docs/.
    """
    if page == PAGE:
        return text
    place = "../" * page.count("/") + PAGE
    for word, anchor in words().items():
        if f"glossary.md#{anchor})" in text:
            continue
        found = _first(text, word)
        if found is not None:
            start, end = found
            link = f"[{text[start:end]}]({place}#{anchor})"
            text = text[:start] + link + text[end:]
    return text


def _first(text: str, word: str) -> tuple[int, int] | None:
    """Where the word, or its plural, stands first in prose."""
    apart = [match.span() for match in _APART.finditer(text)]
    for match in _pattern(word).finditer(text):
        if not any(start <= match.start() < end for start, end in apart):
            return match.span()
    return None


@cache
def _pattern(word: str) -> re.Pattern[str]:
    """Short forms (SLF, B2) as they are written; other words in any case."""
    plain = re.escape(word).replace(r"\ ", r"\s+")
    if word.upper() == word:
        return re.compile(rf"(?<![\w@/-]){plain}(?![\w-])")
    plural = rf"{plain[:-1]}(?:y|ies)" if word.endswith("y") else rf"{plain}(?:s|es)?"
    return re.compile(rf"(?<![\w@/-]){plural}(?![\w-])", re.IGNORECASE)
