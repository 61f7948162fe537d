"""Run folders in the hands of several processes, or damaged, by real commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import commands
import pytest
import torch
from safetensors.torch import load_file, save_file

from robrep_eval.commands.cli import cli
from robrep_eval.run.run_folder import CHUNKS
from zoo.classifier import Classifier
from zoo.classifier_file import save_classifier
from zoo.files import read_json

pytestmark = pytest.mark.slow


WORDS = ("--dataset", "digits", "-q", "--health", "none", "--chunk-size", "6")
BRIEF = ("--attacks", "fgsm,apgd-ce", "--limit", "12", "--eps", "0.12")
ENDLESS = ("--attacks", "square", "--limit", "300", "--eps", "0.001")


@pytest.fixture(scope="module")
def command(
    robust_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ...]:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_classifier(robust_classifier, path, reference="test")
    return ("robrep_eval", "--model", str(path), *WORDS)


@pytest.fixture(scope="module")
def killed(command: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which the first chunk was done, under a narrow umask."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    process = commands.start(*command, *BRIEF, "--output", str(folder), umask=0o077)
    done = folder / CHUNKS / "00000000-apgd-ce.safetensors"
    commands.until(done.exists, process)
    process.kill()
    commands.finish(process)
    return folder


def test_files_are_for_whom_the_umask_says(killed: Path) -> None:
    assert commands.modes(killed) == {0o600}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _tensors(
    change: Callable[[dict[str, torch.Tensor]], object],
) -> Callable[..., None]:
    def damage(path: Path) -> None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"seconds": "0.1", "notes": "[]"})

    return damage


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("fgsm", _cut),
        ("fgsm", _tensors(lambda t: t.update(outcomes=t["outcomes"][:-1].clone()))),
        ("fgsm", _tensors(lambda t: t.update(outcomes=t["outcomes"] * 0))),
        ("clean", _tensors(lambda t: t.update(clean=t["clean"] + 90))),
        ("clean", _tensors(lambda t: t.update(clean=t["clean"].float()))),
    ],
)
def test_a_damaged_chunk_is_named(
    killed: Path,
    command: tuple[str, ...],
    tmp_path: Path,
    file: str,
    damage: Callable[[Path], None],
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    chunk = folder / CHUNKS / f"00000000-{file}.safetensors"
    damage(chunk)
    told = commands.refusal(cli, "run", *command[1:], *BRIEF, "--output", str(folder))
    assert f"{chunk} is damaged or of another run" in told
    assert not (folder / "result.json").exists()


def test_a_chunk_that_is_removed_is_done_again(
    killed: Path, command: tuple[str, ...], tmp_path: Path
) -> None:
    folder, whole = tmp_path / "run", tmp_path / "whole"
    shutil.copytree(killed, folder)
    for path in (folder / CHUNKS).glob("00000000-*"):
        path.unlink()
    for output in (folder, whole):
        code, _, err = commands.run(*command, *BRIEF, "--output", str(output))
        assert code == 0, err
    found, expected = (read_json(f / "result.json") for f in (folder, whole))
    for name in ("clean", "robust", "columns"):
        assert found[name] == expected[name]


def test_one_folder_is_evaluated_by_one_process(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    folder, home = tmp_path / "run", str(tmp_path / "home")
    words = (*command, "--output", str(folder))
    first = commands.start(*words, *ENDLESS, ROBREP_HOME=home)
    commands.until((folder / "run.json").exists, first)
    code, _, err = commands.run(*words, *BRIEF, ROBREP_HOME=home)
    assert code == 2
    told = rf"run is in use by process {first.pid} since \d{{4}}-\d\d-\d\d .*--wait"
    assert re.search(told, err)
    more = ("--wait", "--overwrite")
    waiting = commands.start(*words, *BRIEF, *more, ROBREP_HOME=home)
    first.kill()
    commands.finish(first)
    code, _, err = commands.finish(waiting)
    assert code == 0, err
    assert read_json(folder / "result.json")["dataset"]["n"] == 12


def test_interrupting_twice_is_no_traceback(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = commands.start(*command, *ENDLESS, "--output", str(folder))
    commands.until(lambda: any((folder / CHUNKS).glob("*")), process)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
    code, _, err = commands.finish(process)
    assert code == 130
    assert err.strip().splitlines() == [
        "Error: interrupted; the same command again goes on from here"
    ]
