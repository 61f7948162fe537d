"""The bundle for RobustBench in an environment without robrep."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import clean_room
import fake_cifar
import numpy as np
import pytest
from ten_thousand import NAME, PAPER, Prepared, prepare

from zoo.autoattack import stand_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with robustbench and without robrep."""
    root = tmp_path_factory.mktemp("clean") / "room"
    return clean_room.build(root, "robustbench", "setuptools")


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test set as check.py takes it."""
    data = fake_cifar.read("cifar10", "test", Path())
    path = tmp_path_factory.mktemp("data") / "test.npz"
    images = data.integers(slice(None)).numpy()
    np.savez(path, x=images, y=data.labels.numpy())
    return path


def run(python: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *map(str, args)],
        cwd=python.parent,  # not here, where robrep lies
        env=clean_room.environment(),
        capture_output=True,
        text=True,
    )


def test_the_room_is_clean(python: Path) -> None:
    code = (
        "from importlib.util import find_spec\n"
        "names = ('zoo', 'robrep_eval', 'pretrain', 'autoattack', 'robustbench')\n"
        "print([name for name in names if find_spec(name)])\n"
    )
    assert run(python, "-c", code).stdout.strip() == "['robustbench']"


def test_loads_through_their_zoo_and_gives_the_entrys_figure(
    python: Path, prepared: Prepared, npz: Path
) -> None:
    done = run(python, prepared.bundle / "check.py", "--npz", npz)
    assert done.returncode == 0, done.stderr
    clean = f"{100 * prepared.result.clean.value:.2f}"
    robust = f"{100 * prepared.result.robust.value:.2f}"
    assert "attacks from pyautoattack" in done.stdout
    assert f"model   {NAME} loads, in eval mode" in done.stdout
    assert f"clean   {clean}, stated {clean}, 10000 images: agrees" in done.stdout
    assert f"& {clean} & {robust} & Y &" in done.stdout
    assert NAME.replace("_", "\\_") in done.stdout
    assert f"title\t= {{{PAPER.title}}}" in done.stdout
    assert "year\t= {2022}" in done.stdout


def test_a_figure_that_differs_is_told(
    python: Path, prepared: Prepared, npz: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(prepared.bundle, tmp_path / "bundle"))
    path = bundle / "model_info" / "cifar10" / "Linf" / f"{NAME}.json"
    info = json.loads(path.read_text())
    stated = f"{float(info['clean_acc']) + 0.1:.2f}"
    path.write_text(json.dumps(info | {"clean_acc": stated}))
    done = run(python, bundle / "check.py", "--npz", npz)
    assert done.returncode == 1
    assert f"stated {stated}, 10000 images: DIFFERS" in done.stdout


@pytest.mark.parametrize("content", [None, b"not an archive"])
def test_a_test_set_that_is_none_is_named(
    python: Path, prepared: Prepared, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "test.npz"
    if content is not None:
        path.write_bytes(content)
    done = run(python, prepared.bundle / "check.py", "--npz", path)
    assert done.returncode == 1
    assert f"{path} does not hold the arrays x and y (" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_either_autoattack_repeats_the_attack(
    python: Path, prepared: Prepared, npz: Path
) -> None:
    """pyautoattack, and a package that calls itself autoattack, with one seed."""
    answers = {}
    check: list[str | Path] = [prepared.bundle / "check.py", "--npz", npz]
    check += ["--attack", "20"]
    answers["pyautoattack"] = run(python, *check)
    packages = next(python.parent.parent.glob("lib/python*/site-packages"))
    package = packages / "autoattack"
    package.mkdir()
    shutil.copyfile(stand_in.__file__, package / "__init__.py")
    (package / "state.py").write_text("from pyautoattack.state import EvaluationState")
    try:
        answers["autoattack"] = run(python, *check)
    finally:
        shutil.rmtree(package)
    lines = {}
    for name, done in answers.items():
        assert done.returncode == 0, done.stderr
        assert f"attacks from {name}\n" in done.stdout
        lines[name] = done.stdout.splitlines()[1:]
        assert "using standard version including apgd-ce, apgd-t" in done.stderr
    assert lines["pyautoattack"] == lines["autoattack"]
    (robust,) = [line for line in lines["autoattack"] if line.startswith("robust")]
    assert robust.endswith(" of 20 in verdicts.csv")
