"""Training folders in the hands of several processes, or damaged, by real commands."""

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

from pretrain.cli import command
from pretrain.run_folder import CHECKPOINT

pytestmark = pytest.mark.slow


SMALL = (
    *("pretrain", "--method", "simclr", "--batch", "64", "-q", "-o", "limit=200"),
    *("-o", "arch_options.widths=[4,8]", "-o", "arch_options.blocks=[1,1]"),
    *("-o", "monitor.every=0", "-o", "checkpoint_minutes=0"),
)
BRIEF, ENDLESS = ("--epochs", "2"), ("--epochs", "1000000")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, made under a umask that lets nobody else read."""
    folder = tmp_path_factory.mktemp("ended") / "run"
    code, _, err = commands.run(*SMALL, *BRIEF, "--output", str(folder), umask=0o077)
    assert code == 0, err
    return folder


def test_files_are_for_whom_the_umask_says(ended: Path) -> None:
    assert commands.modes(ended) == {0o600}


def _other_keys(path: Path) -> None:
    torch.save({"epoch": 2, "weights": {}}, path)


def _other_weights(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    torch.save({**state, "method": {"a": torch.zeros(1)}}, path)


def _another_epoch(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "epoch": 7}, path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _a_line(line: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(line + b"\n" + path.read_bytes())

    return damage


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("checkpoint.pt", _cut, "cannot be read"),
        ("checkpoint.pt", _other_keys, "is no checkpoint of robrep-pretrain"),
        ("checkpoint.pt", _other_weights, "does not fit this run"),
        ("checkpoint.pt", _another_epoch, "does not fit this run (epoch 7 of 2)"),
        ("metrics.jsonl", _a_line(b'{"loss": 1}'), "is no record of an epoch"),
        ("metrics.jsonl", _a_line(b"[1]"), "is no record of an epoch"),
        ("metrics.jsonl", _a_line(b'{"epoch": 1, "lo'), "is no record of an epoch"),
        ("metrics.jsonl", _a_line(b'{"epoch": -1}'), "is no record of an epoch"),
    ],
)
def test_what_is_damaged_is_named_and_stays(
    ended: Path, tmp_path: Path, file: str, damage: Callable[[Path], None], reason: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ended, folder)
    damage(folder / file)
    before = (folder / file).read_bytes()
    told = commands.refusal(command, *SMALL[1:], *BRIEF, "--output", str(folder))
    assert reason in told
    assert file in told
    assert (folder / file).read_bytes() == before


def test_the_checkpoint_has_the_keys_that_are_asked_for(ended: Path) -> None:
    assert torch.load(ended / "checkpoint.pt", weights_only=True).keys() == CHECKPOINT


def test_one_folder_is_trained_by_one_process(tmp_path: Path) -> None:
    folder, home = tmp_path / "run", str(tmp_path / "home")
    words = (*SMALL, *ENDLESS, "--output", str(folder))
    first = commands.start(*words, ROBREP_HOME=home)
    commands.until(lambda: (folder / "metrics.jsonl").exists(), first)
    code, _, err = commands.run(*words, ROBREP_HOME=home)
    assert code == 2
    told = rf"run is in use by process {first.pid} since \d{{4}}-\d\d-\d\d .*--wait"
    assert re.search(told, err)
    waiting = commands.start(*words, "--wait", ROBREP_HOME=home)
    first.kill()
    commands.finish(first)
    lines = len((folder / "metrics.jsonl").read_bytes().splitlines())
    metrics = folder / "metrics.jsonl"
    commands.until(lambda: len(metrics.read_bytes().splitlines()) > lines, waiting)
    waiting.kill()
    commands.finish(waiting)
    epochs = re.findall(r'"epoch": (\d+)', metrics.read_text())
    assert [int(epoch) for epoch in epochs] == list(range(1, len(epochs) + 1))


def test_interrupting_twice_is_no_traceback(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = commands.start(*SMALL, *ENDLESS, "--output", str(folder))
    commands.until(lambda: (folder / "metrics.jsonl").exists(), process)
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
    code, _, err = commands.finish(process)
    assert code == 130
    assert err.strip().splitlines() == [
        "Error: interrupted; the same command again goes on from here"
    ]
