"""A place that cannot be written is refused before the work that would end there.

Tried: below a plain file, a file in the folder's place, a link that leads nowhere, a
name that is too long, and /proc, in which nobody makes a file. None depends on
permissions, which the superuser does not heed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from zoo_collection import add_encoder

from pretrain.cli import main as pretrain_command
from robrep_eval.commands.cli import main as eval_command
from robrep_eval.run.chunk import BatterySettings
from robrep_eval.run.run_folder import RunFolder
from zoo.commands.cli import main as zoo_command
from zoo.errors import UserError
from zoo.paths import home
from zoo.settings import dump
from zoo.writable import check_writable

PLACES = ("file/below/run", "file", "nowhere", "nowhere/run", "x" * 300, "/proc/robrep")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what is in the way of `PLACES`, in which commands are called."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing(root: Path) -> list[Path]:
    """All that lies there but robrep's own folder, in which its locks are."""
    return sorted(
        path for path in root.rglob("*") if home() not in (path, *path.parents)
    )


@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_written_is_told_with_what_to_do(root: Path, place: str) -> None:
    before = listing(root)
    expected = rf"^cannot write to {re.escape(place)}: [A-Z].*; do this$"
    with pytest.raises(UserError, match=expected):
        check_writable(Path(place), "do this")
    assert listing(root) == before
    with pytest.raises(OSError, match="Errno"):  # it is true
        (Path(place) / "folder").mkdir(parents=True)


@pytest.mark.parametrize("place", ["a\0b", "a\0b/run"])
def test_what_is_no_path_is_told_too(root: Path, place: str) -> None:
    before = listing(root)
    with pytest.raises(UserError, match=r"^cannot write to a\0b.*; do this$"):
        check_writable(Path(place), "do this")
    assert listing(root) == before


@pytest.mark.parametrize("place", ["", "new", "new/in/new", "there", "link"])
def test_what_can_be_written_is_left_as_it_is(root: Path, place: str) -> None:
    (root / "there").mkdir()
    (root / "link").symlink_to(root / "there")
    before = listing(root)
    check_writable(root / place, "")
    check_writable(Path(place), "")
    assert listing(root) == before


def never(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the work was begun")


EVAL = "--model zoo:tarrl-digits --limit 8 --battery quick --health none"
COMMANDS: dict[str, tuple[Callable[[], None], str, str]] = {
    "eval": (
        eval_command,
        f"{EVAL} --output PLACE",
        "robrep_eval.run.evaluation._run",
    ),
    "eval, several": (
        eval_command,
        f"{EVAL} --eps 0.05,0.1 --output PLACE",
        "robrep_eval.run.several.prepare",
    ),
    "eval, summary": (
        eval_command,
        f"{EVAL} --summary PLACE/table.tex",
        "robrep_eval.run.several.prepare",
    ),
    "suite": (
        eval_command,
        f"{EVAL} --suite digits --output PLACE",
        "robrep_eval.run.several.prepare",
    ),
    "pretrain": (
        pretrain_command,
        "tarrl-digits --output PLACE",
        "pretrain.train.training_images",
    ),
    "publish": (
        zoo_command,
        "publish encoder --to PLACE",
        "zoo.collection.publish.prepare",
    ),
}


@pytest.mark.parametrize("place", ["file/below/run", "file", "/proc/robrep"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_so_before_its_work(
    root: Path,
    place: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, words, work = COMMANDS[name]
    add_encoder(root, "encoder")
    before = listing(root)
    monkeypatch.setattr(work, never)
    typed = words.replace("PLACE", place).split()
    monkeypatch.setattr(sys, "argv", ["robrep", *typed])
    with pytest.raises(SystemExit) as left:
        command()
    err = capsys.readouterr().err
    assert left.value.code == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert place in line
    assert "Traceback" not in err
    assert listing(root) == before


def test_publishing_to_no_place_is_refused_before_its_work(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.collection.publish import Publication, publish

    monkeypatch.setattr("zoo.collection.publish.prepare", never)
    request = Publication(runs=[root])
    for to in ("https://host/zoo", "hf://", "hf://one"):
        with pytest.raises(UserError, match=to):
            publish(request, to)
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    with pytest.raises(UserError, match="offline mode is on"):
        publish(request, "hf://org/repo")


def test_a_worst_case_in_a_zoo_that_cannot_be_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc is a folder that is there; its lock would be refused with a traceback."""
    from zoo.collection.strengthen import strengthen

    monkeypatch.setattr("zoo.collection.publish.FileLock", never)
    with pytest.raises(UserError, match=r"^cannot write to /proc: .*--to$"):
        strengthen(Path("/proc"), "encoder/entry", [root])


def test_a_run_to_go_on_with_that_cannot_be_written_any_more(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is made read-only by refusing every new file: see `tempfile`."""
    settings = dump(BatterySettings())
    identity = {"dataset": None, "train": None, "probe": None, "settings": settings}
    RunFolder.open(root / "run", identity)
    before = listing(root)

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match="Read-only file system; choose another"):
        RunFolder.open(root / "run", identity)
    assert listing(root) == before
