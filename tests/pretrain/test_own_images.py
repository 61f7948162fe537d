"""Images of one's own: trained on, evaluated, published; paths stay on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import commands
import pytest
from PIL import Image

from robrep_eval.commands.cli import cli
from zoo.datasets.base import Dataset

pytestmark = pytest.mark.slow


SECRET = "customer acme"
"""Part of the path that nobody else is to see."""
USER = tempfile.TemporaryDirectory()
"""The user's own folder, wherever commands are run."""
FAST = ("--attacks", "fgsm", "--health", "none", "--limit", "12", "--eps", "0.05")


def call(package: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    cwd.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", package, *words],
        cwd=cwd,
        env={**os.environ, "ROBREP_HOME": USER.name, "HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
    )


def done(package: str, *words: str, cwd: Path) -> str:
    """Of one that succeeds: what it printed."""
    found = call(package, *words, cwd=cwd)
    assert found.returncode == 0, found.stderr
    return found.stdout


def save_images(data: Dataset, root: Path, count: int) -> None:
    """Digits below five, and the others."""
    pixels = (data.images(slice(count)) * 255).round().byte()
    for at, label in enumerate(data.labels[:count].tolist()):
        folder = root / data.split / ("low" if label < 5 else "high")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[at, 0].numpy()).save(folder / f"{at:03d}.png")


@pytest.fixture(scope="module")
def here(
    digits_train: Dataset,
    digits_test: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder from which an encoder was trained on images named by a relative path."""
    here = tmp_path_factory.mktemp("work")
    images = here / SECRET / "own set"
    save_images(digits_train, images, 80)
    save_images(digits_test, images, 20)
    Image.new("RGB", (8, 8)).save(images / "test" / "odd.png")  # worth a note
    done(
        "pretrain",
        *("--method", "simclr", "--data", f"imagefolder:{SECRET}/own set"),
        *("--epochs", "1", "--batch", "32", "-o", "monitor.every=0", "--name", "own"),
        *("-o", "arch_options.widths=[4,8]", "-o", "arch_options.blocks=[1,1]"),
        *("--output", f"{SECRET}/run"),
        cwd=here,
    )
    return here


@pytest.fixture(scope="module")
def run(here: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of it, from elsewhere, on the images that it was trained on."""
    model, elsewhere = here / SECRET / "run" / "last", tmp_path_factory.mktemp("else")
    done("robrep_eval", "--model", str(model), *FAST, "--output", "out", cwd=elsewhere)
    return elsewhere / "out"


def test_a_card_names_images_without_their_path(here: Path) -> None:
    card = json.loads((here / SECRET / "run/last/card.json").read_text())
    assert card["training"]["dataset"] == "imagefolder:own set"
    assert card["training"]["recipe"]["data"] == "imagefolder:own set"
    assert "--data 'imagefolder:own set'" in card["training"]["command"]
    assert SECRET not in json.dumps(card)


def test_a_result_names_them_alike(run: Path) -> None:
    text = (run / "result.json").read_text()
    result = json.loads(text)
    assert result["dataset"]["name"] == "imagefolder:own set"
    assert result["probe"]["train"] == "imagefolder:own set/train"
    assert result["notes"]  # the odd file is spoken of
    assert "--output" not in result["provenance"]["command"]


def test_the_run_is_verified_and_taken_up_from_anywhere(
    run: Path, here: Path, tmp_path: Path
) -> None:
    assert "labels: all: 80 of 80" in done(
        "robrep_eval", "verify", str(run), cwd=tmp_path
    )
    model = here / SECRET / "run" / "last"
    words = ("--model", str(model), *FAST, "--output", str(run))
    assert "nothing left to do" in call("robrep_eval", *words, cwd=tmp_path).stderr


def test_images_that_moved_are_named(run: Path, here: Path, tmp_path: Path) -> None:
    moved = tmp_path / "copy"
    shutil.copytree(run, moved)
    (moved / "local.json").unlink()
    failed = call("robrep_eval", "verify", str(moved), cwd=tmp_path)
    assert failed.returncode == 2
    assert "'imagefolder:own set' is somebody's own" in failed.stderr
    images = f"imagefolder:{here / SECRET / 'own set'}"
    done("robrep_eval", "verify", str(moved), "--dataset", images, cwd=tmp_path)


def test_nothing_that_is_published_holds_a_path(
    run: Path, here: Path, tmp_path: Path
) -> None:
    done("zoo", "publish", str(run), "--to", "zoo", cwd=tmp_path)
    published = [p for p in (tmp_path / "zoo").rglob("*") if p.is_file()]
    assert any(path.name == "entry.json" for path in published)
    for path in published:
        content = path.read_bytes()
        for told in (SECRET, str(here), str(run.parent), "local.json"):
            assert told.encode() not in content, path
    told = done("zoo", "verify", "--all", "--source", "zoo", cwd=tmp_path)
    assert "not checked" in told
    images = ("--data-dir", str(here / SECRET))
    told = done("zoo", "verify", "--all", "--source", "zoo", *images, cwd=tmp_path)
    assert "12 recomputed" in told
    assert "labels: all: 80 of 80" in told


def test_a_name_of_ones_own(here: Path, tmp_path: Path) -> None:
    images = f"imagefolder:{here / SECRET / 'own set'}"
    model = ("--model", str(here / SECRET / "run" / "last"), "--dataset", images)
    named = (*model, *FAST, "--output", "out")
    done("robrep_eval", *named, "--dataset-name", "pets", cwd=tmp_path)
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["dataset"]["name"] == "imagefolder:pets"
    assert SECRET not in json.dumps(result["dataset"] | result["probe"])


@pytest.mark.parametrize(
    ("dataset", "name", "reason"),
    [
        ("digits", "pets", "'digits' has a name already"),
        ("imagefolder:x", "a/b", "cannot name a dataset"),
        ("imagefolder:x", "..", "cannot name a dataset"),
        ("digits,imagefolder:x", "pets", "'digits' has a name already"),
        ("imagefolder:x,imagefolder:y", "pets", "would both be called"),
        ("imagefolder:a/x,imagefolder:b/x", None, "would both be called"),
    ],
)
def test_names_that_are_none(
    here: Path, dataset: str, name: str | None, reason: str
) -> None:
    words = ["--model", str(here / SECRET / "run" / "last"), "--dataset", dataset]
    words += ["--dataset-name", name] if name is not None else []
    assert reason in commands.refusal(cli, "run", *words, *FAST)
