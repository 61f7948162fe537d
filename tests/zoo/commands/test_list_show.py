"""`robrep-zoo list` and `show` as people run them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from zoo_collection import add_encoder

from zoo.board.leaderboard import Board, Row
from zoo.collection.audit import Audit
from zoo.collection.reattack import Sampled

ROOT = Path(__file__).parents[3]


def zoo(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "zoo", *args],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120", **environment},
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    add_encoder(folder, "first-digits")
    add_encoder(folder, "second-digits", seed=1, description="[red]\x1b[2J<b>bold</b>")
    return folder


def test_list_names_every_encoder(root: Path) -> None:
    done = zoo("list", "--source", str(root))
    assert done.returncode == 0, done.stderr
    assert "first-digits" in done.stdout
    assert "Linf 0.1" in done.stdout


def test_json_is_the_cards(root: Path) -> None:
    done = zoo("list", "--json", ROBREP_ZOO=str(root))
    cards = json.loads(done.stdout)
    assert [card["name"] for card in cards] == ["first-digits", "second-digits"]
    shown = json.loads(
        zoo("show", "first-digits", "--json", ROBREP_ZOO=str(root)).stdout
    )
    assert shown == cards[0]


def test_text_of_others_is_shown_as_it_is(root: Path) -> None:
    done = zoo("show", "second-digits", "--source", str(root))
    assert "[red]\ufffd[2J<b>bold</b>" in done.stdout


def test_unknown_name_gets_the_nearest(root: Path) -> None:
    done = zoo("show", "first-digit", "--source", str(root))
    assert done.returncode == 2
    assert "did you mean 'first-digits'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/zoo", "no such folder"),
        ("ftp://host/zoo", "known forms"),
    ],
)
def test_bad_source(source: str, message: str) -> None:
    done = zoo("list", "--source", source)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("args", [["list"], ["show", "first-digits"], ["--help"]])
def test_nothing_heavy_is_imported(root: Path, args: list[str]) -> None:
    code = (
        "import sys; from zoo.commands.cli import cli\n"
        f"cli({args!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "ROBREP_ZOO": str(root)},
    )
    assert done.returncode == 0, done.stderr


def test_the_page_names_every_field_that_programs_get() -> None:
    """Of a row of the leaderboard, of a verdict, and of a re-attack."""
    text = (ROOT / "docs" / "reference" / "zoo.md").read_text(encoding="utf-8")
    part = text.partition("## For programs")[2].partition("\n## ")[0]
    fields = [*Row.model_fields, *Board.model_fields]
    fields += [
        each.name for kind in (Audit, Sampled) for each in dataclasses.fields(kind)
    ]
    assert [name for name in fields if f"`{name}`" not in part] == []
