"""README and docs/: links hold, code blocks run, the questions are answered."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from documents import (
    IN_CI,
    LONG,
    NOT_RUN,
    ROOT,
    SLOW,
    Block,
    anchors,
    blocks,
    links,
    name_of,
    texts,
    written,
)

PAGES = {name_of(path): blocks(path) for path in written()}
COMMANDS = [block for found in PAGES.values() for block in found if block.command]


@pytest.mark.parametrize("page", sorted(texts()))
def test_links_and_anchors_hold(page: str) -> None:
    for target, anchor in links(page):
        assert target in texts() or (ROOT / target).exists(), f"{page}: no {target}"
        if anchor and target in texts():
            assert anchor in anchors(target), f"{page}: no #{anchor} in {target}"


def test_documents_that_the_code_names_are_there() -> None:
    named = {
        (str(path.relative_to(ROOT)), found)
        for package in ("zoo", "robrep_eval", "pretrain", "benchmarks", "website")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".yaml")
        for found in re.findall(r"docs/[\w/-]+\.md", path.read_text())
    }
    assert named
    assert not [(path, d) for path, d in named if not (ROOT / d).is_file()]


def test_the_link_reader_finds_links() -> None:
    assert ("docs/start/questions.md", "") in links("docs/index.md")
    assert "a-price-on-displacement" in anchors("docs/reference/pretraining.md")


def test_every_block_has_a_language_and_every_reason_is_given() -> None:
    for found in PAGES.values():
        for block in found:
            assert block.language, f"{block.page}: a block without a language"
    for block in COMMANDS:
        marked = block.comment.startswith((NOT_RUN, SLOW, LONG, *IN_CI))
        assert marked or not block.comment, f"{block.page}: {block.comment}"


def _environment() -> dict[str, str]:
    """Our packages first, and the commands of this environment."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PYTHONPATH": path, "PATH": programs, "TERM": "dumb"}


def _run(page: Sequence[Block], folder: Path) -> None:
    """Blocks of one page, one after the other, in one folder.

    Python shares one process until commands come between.
    """
    python: list[str] = []
    for block in [*page, None]:
        if block is not None and block.language == "python":
            python.append(block.code)
            continue
        if python:
            _call([sys.executable, "-W", "ignore", "-c", "\n".join(python)], folder)
            python.clear()
        if block is not None:
            _call(["bash", "-euo", "pipefail", "-c", block.code], folder)


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def _marked(page: Sequence[Block], mark: str) -> bool:
    return any(block.comment.startswith(mark) for block in page)


def _to_run(*, slow: bool) -> list[list[Block]]:
    """Pages with something to run, less their long blocks; a slow one makes its page
    slow."""
    runs = [
        [b for b in page if b.runs and not b.comment.startswith(LONG)]
        for page in PAGES.values()
    ]
    return [page for page in runs if page and slow == _marked(page, SLOW)]


@pytest.mark.parametrize("page", _to_run(slow=False), ids=lambda page: page[0].page)
def test_blocks_run(page: list[Block], tmp_path: Path) -> None:
    _run(page, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", _to_run(slow=True), ids=lambda page: page[0].page)
def test_slow_blocks_run(page: list[Block], tmp_path: Path) -> None:
    """Seven minutes of one core in all; the comments of each page say its share."""
    _run(page, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page",
    [[b for b in page if b.runs] for page in PAGES.values() if _marked(page, LONG)],
    ids=lambda page: page[0].page,
)
def test_long_blocks_run(page: list[Block], tmp_path: Path) -> None:
    """The suite of ten tasks: 88 seconds of one core; needs Fashion-MNIST."""
    _run(page, tmp_path)


def _lines(code: str) -> list[str]:
    return [line.strip() for line in code.replace("\\\n", " ").splitlines()]


OURS = [
    (block, line)
    for block in COMMANDS
    for line in _lines(block.code)
    if re.match(r"robrep-(eval|zoo|pretrain) ", line)
]


@pytest.mark.parametrize(("block", "line"), OURS, ids=lambda x: getattr(x, "page", x))
def test_commands_have_the_options_that_are_written(block: Block, line: str) -> None:
    """Also of blocks that are not run."""
    from pretrain.cli import command as pretraining
    from robrep_eval.commands.cli import cli as evaluation
    from zoo.commands.cli import cli as collection

    name, *words = shlex.split(line, comments=True)
    tops: dict[str, click.Command] = {
        "robrep-eval": evaluation,
        "robrep-zoo": collection,
        "robrep-pretrain": pretraining,
    }
    command = tops[name]
    while isinstance(command, click.Group) and words != ["--version"]:
        verb = "run" if words[0].startswith("--") else words.pop(0)
        command = command.commands[verb]
    known = {
        flag
        for option in command.params
        for flag in (*option.opts, *option.secondary_opts)
    }
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.split("=")[0] in known | {"--version", "--help"}, word


def test_twenty_questions_lie_two_clicks_from_the_readme() -> None:
    questions = "docs/start/questions.md"
    assert questions in {target for target, _ in links("README.md")}
    rows = [row for row in texts()[questions].splitlines() if row.count("|") == 3]
    assert len(rows) - 2 == 20
    for row in rows[2:]:
        assert re.search(r"\]\([^)]+\)", row.split("|")[2]), row
