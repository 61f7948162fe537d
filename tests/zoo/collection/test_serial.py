"""A collection that shows an older index than before is noticed, wherever it lies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import hub_stub
import pytest
import serving
from zoo_collection import Evaluated

from zoo.collection.index import INDEX, Index
from zoo.collection.publish import Publication, publish
from zoo.records import read_record

NAME = "tiny-digits"
WARNING = "older than the one that was there before (its serial number went back from"


@pytest.fixture
def states(evaluated: Evaluated, tmp_path: Path) -> tuple[Path, Path]:
    """A collection before and after a second entry was published."""
    old, new = evaluated.copy(tmp_path / "old"), evaluated.copy(tmp_path / "new")
    source = str(evaluated.plain)
    publish(Publication(runs=[evaluated.other_run], source=source), str(new))
    before, after = (read_record(root / INDEX, Index) for root in (old, new))
    assert 0 < before.serial < after.serial
    return old, new


def show(source: str, **more: str) -> str:
    """stderr of `robrep-zoo show`, which succeeds, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "show", NAME, "--source", source],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def tell(source: str, swap: tuple[Path, Path, Path], **more: str) -> list[str]:
    """What is said of the new state, of the old one in its place, and of the new."""
    shown, old, new = swap
    told = []
    for state in (new, old, old, new):
        shutil.rmtree(shown, ignore_errors=True)
        shutil.copytree(state, shown)
        told.append(show(source, **more))
    return told


def expect(told: list[str]) -> None:
    newest, older, again, back = told
    assert (newest, back) == ("", "")
    for text in (older, again):  # it stays known that there was a newer one
        (line,) = text.splitlines()
        assert line.startswith("Warning: the index of ")
        assert WARNING in line


def test_on_a_web_server(states: tuple[Path, Path], tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir()
    with serving.serving(shown) as server:
        expect(tell(server.url, (shown, *states)))


def test_in_a_folder(states: tuple[Path, Path], tmp_path: Path) -> None:
    expect(tell(str(tmp_path / "shown"), (tmp_path / "shown", *states)))


@pytest.mark.slow
def test_on_a_hub(states: tuple[Path, Path], tmp_path: Path) -> None:
    """A repository that was set back; a revision that is asked for may be older."""
    with hub_stub.hub() as hub:
        here = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub-home")}
        old, new = map(contents, states)
        told = []
        for files in (new, old, old, new):
            hub.commits["org/tiny"] = [files]
            told.append(show("hf://org/tiny", **here))
        expect(told)
        hub.commits["org/tiny"] = [old, new]
        assert show(f"hf://org/tiny@{hub_stub.sha(old)}", **here) == ""


def contents(root: Path) -> dict[str, bytes]:
    """Of all files below a folder."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_an_index_that_is_changed_grows(states: tuple[Path, Path]) -> None:
    """Publishing what is there already changes nothing, its number neither."""
    _, new = states
    number = read_record(new / INDEX, Index).serial
    publish(Publication(runs=[new / NAME]), str(new))
    assert read_record(new / INDEX, Index).serial == number
