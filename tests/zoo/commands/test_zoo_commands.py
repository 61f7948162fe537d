"""`robrep-zoo` from publishing to verifying, by its commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import serving
from zoo_collection import ENTRY, Evaluated

from zoo import datasets
from zoo.collection.sources import FolderSource
from zoo.commands.cli import cli
from zoo.commands.shell import run
from zoo.datasets.base import Dataset

Ran = tuple[int, str, str]
"""Exit code, stdout, stderr."""


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Runs the command as its entry point does."""
    monkeypatch.delenv("ROBREP_ZOO", raising=False)

    def call(*args: object) -> Ran:
        monkeypatch.setattr("sys.argv", ["robrep-zoo", *map(str, args)])
        with pytest.raises(SystemExit) as left:
            run(cli, "robrep-zoo")
        out, err = capsys.readouterr()
        return int(str(left.value.code or 0)), out, err

    return call


def test_publish_then_verify(
    command: Callable[..., Ran], evaluated: Evaluated, tmp_path: Path
) -> None:
    target = tmp_path / "zoo"
    publish = ["publish", evaluated.run, "--to", target, "--source", evaluated.plain]
    code, out, _ = command(*publish)
    assert (code, out.splitlines()) == (
        0,
        [
            f"published tiny-digits to {target}",
            f"published entry tiny-digits/{ENTRY}",
        ],
    )
    assert command(*publish)[1] == f"entry tiny-digits/{ENTRY} was there already\n"
    for args in (["--all"], ["tiny-digits"], [f"tiny-digits/{ENTRY}"]):
        code, out, err = command("verify", *args, "--source", target)
        assert code == 0, err
        assert f"holds  tiny-digits/{ENTRY}" in out
        assert re.search(r"^(\d) of \1 hold \(\d+\.\d s\)$", err, re.MULTILINE)
    weights = target / "tiny-digits" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    code, out, err = command("verify", "--all", "--source", target)
    assert code == 1
    assert "FAILS  tiny-digits: " in out
    assert f"2 of 2 do not hold: tiny-digits, tiny-digits/{ENTRY}\n" in err
    code, out, _ = command("verify", "--all", "--json", "--source", target)
    assert code == 1
    assert [row["holds"] for row in json.loads(out)] == [False, False]


@pytest.fixture
def images_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are of a dataset that this machine does not have."""

    def elsewhere(*_: object, **__: object) -> Dataset:
        return datasets.load("cifar10-jpeg", "test", data_dir=tmp_path)

    monkeypatch.setattr("zoo.verification.load_named_dataset", elsewhere)


@pytest.mark.usefixtures("images_elsewhere")
def test_entries_without_their_images_are_left_out_and_named(
    command: Callable[..., Ran], evaluated: Evaluated
) -> None:
    source = ["--source", evaluated.published]
    code, out, err = command("verify", "--all", *source)
    assert code == 0
    assert "holds  tiny-digits (" in out
    whole = " ".join(out.split())  # lines are cut at the width of the terminal
    assert f"not checked tiny-digits/{ENTRY}: dataset 'cifar10-jpeg' was not" in whole
    assert "1 of 2 hold" in err
    assert f"their images are not here: tiny-digits/{ENTRY}" in err
    code, _, err = command("verify", "tiny-digits", *source)
    assert code == 2
    assert "not checked" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["verify"], "give a NAME, or --all"),
        (["verify", "tiny-digits", "--all"], "give a NAME, or --all"),
        (["verify", "tiny-digit"], "did you mean 'tiny-digits'"),
        (["verify", "tiny-digits/nothing"], "no entry 'nothing'"),
        (["leaderboard", "--dataset", "mnist"], "measured on 'mnist'; known: digits"),
        (["list", "--dataset", "mnist"], "trained on 'mnist'; known: digits"),
        (["submit", "--robustbench", "tiny-digits/x"], "no entry 'x'"),
        (["lst"], "list"),
    ],
)
def test_bad_input(
    command: Callable[..., Ran], evaluated: Evaluated, args: list[str], message: str
) -> None:
    source = ["--source", str(evaluated.published)] if args != ["lst"] else []
    code, _, err = command(*args, *source)
    assert code == 2
    assert message in " ".join(err.split())


def test_download_from_a_server(
    command: Callable[..., Ran],
    evaluated: Evaluated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROBREP_HOME", str(tmp_path / "home"))
    with serving.serving(evaluated.published) as server:
        code, out, _ = command("download", "tiny-digits", "--source", server.url)
        assert code == 0
        assert Path(out.strip()).is_relative_to(tmp_path / "home" / "zoo")
        target = tmp_path / "copy" / "tiny-digits"
        args = ["download", "tiny-digits", "--to", target, "--source", server.url]
        assert command(*args)[:2] == (0, f"{target / 'model.safetensors'}\n")
        (target / "card.json").unlink()
        assert command(*args)[0] == 0  # the same again completes what is missing
        assert (target / "card.json").is_file()
        weights = target / "model.safetensors"
        good = weights.read_bytes()
        weights.write_bytes(b"mine")
        code, _, err = command(*args)
        assert code == 2
        assert "choose another --to" in err
        assert weights.read_bytes() == b"mine"
        weights.write_bytes(good)
    row = FolderSource(target.parent).find("tiny-digits")  # a collection by itself
    assert row.entries == [ENTRY]
    original = FolderSource(evaluated.published).find("tiny-digits")
    assert {(f.path, f.sha256) for f in row.files} == {
        (f.path, f.sha256) for f in original.files
    }


def test_a_leaderboard_page_is_written(
    command: Callable[..., Ran], evaluated: Evaluated, tmp_path: Path
) -> None:
    page = tmp_path / "board.html"
    code, out, err = command(
        "leaderboard", "--html", page, "--verify", "--source", evaluated.published
    )
    assert (code, out) == (0, "")
    assert "1 entries" in err
    assert "just verified" in page.read_text()


def test_a_draft_for_robustbench(
    command: Callable[..., Ran], evaluated: Evaluated, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    args = ["submit", "--robustbench", f"tiny-digits/{ENTRY}", "--output", bundle]
    args += ["--source", evaluated.published]
    code, _, err = command(*args)
    assert code == 2
    assert "missing" in err
    code, out, err = command(*args, "--draft", "--title", "A Paper")
    assert (code, out.strip()) == (0, str(bundle))
    assert "MISSING all 10,000 test points" in err
    assert (bundle / "ISSUE.md").is_file()


@pytest.mark.usefixtures("images_elsewhere")
def test_what_a_submission_lacks_is_said_though_its_images_are_not_here(
    command: Callable[..., Ran], evaluated: Evaluated
) -> None:
    code, _, err = command(
        *("submit", "--robustbench", f"tiny-digits/{ENTRY}"),
        *("--source", evaluated.published),
    )
    assert code == 2
    said = " ".join(err.split())
    assert said.index("missing: ") < said.index("no --title") < said.index("was not")
