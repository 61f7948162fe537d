"""The documentation as data: pages, their links and their code blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from website.generated import AT_THE_ROOT, pages

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"^(?:<!-- (?P<comment>.*?) -->\n)?"
    r"(?P<mark>```+)(?P<language>\S*)\n(?P<code>.*?)^(?P=mark)$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()]*\))?[^()\s]*)\)")
NOT_RUN, SLOW, LONG = "not run: ", "slow: ", "long: "
"""What a comment begins with; then follows why, or how long the block takes."""
IN_CI = ("first command", "test command")
"""Marks of blocks that .ci/run runs itself."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: str
    comment: str
    """In the line above: why it is not run, or how long it takes."""
    language: str
    code: str

    @property
    def command(self) -> bool:
        """Something to run."""
        return self.language in ("sh", "python")

    @property
    def runs(self) -> bool:
        """By the tests: fast, slow or long."""
        return self.command and not self.comment.startswith((NOT_RUN, *IN_CI))


def written() -> Iterator[Path]:
    """Every page in Markdown that people wrote."""
    yield from (ROOT / name for name in ("README.md", *AT_THE_ROOT.values()))
    yield from sorted(DOCS.rglob("*.md"))


def name_of(path: Path) -> str:
    """Of a page, from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[Block]:
    """Of one page, from top to bottom."""
    text = path.read_text(encoding="utf-8")
    return [
        Block(
            page=name_of(path),
            comment=found["comment"] or "",
            language=found["language"],
            code=found["code"],
        )
        for found in FENCE.finditer(text)
    ]


@cache
def texts() -> dict[str, str]:
    """Markdown of every page by its place from the root, generated ones among them."""
    found = {name_of(path): path.read_text(encoding="utf-8") for path in written()}
    generated = {f"docs/{name}": text for name, text in pages().items()}
    return found | generated


def links(name: str) -> list[tuple[str, str]]:
    """(page or file from the root, anchor) for each link within the repository."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", texts()[name]))
    found = []
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / name).parent / path if path else ROOT / name
        found.append((name_of(place.resolve()), anchor))
    return found


def anchors(name: str) -> set[str]:
    """Of a page's headings, as the site makes them."""
    heads = re.findall(r"^#{1,6} (.+?)\s*$", FENCE.sub("", texts()[name]), re.MULTILINE)
    return {_slug(head) for head in heads}


def _slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
