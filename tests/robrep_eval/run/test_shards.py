"""Real processes: killed and resumed, and several sharing one evaluation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from zoo.classifier import Classifier
from zoo.classifier_file import save_classifier
from zoo.result_file import read_result

ARGUMENTS = ["--dataset", "digits", "--eps", "0.12", "--limit", "24", "-q"]
ATTACKS = ["--attacks", "apgd-ce", "--chunk-size", "6"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def command(
    robust_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_classifier(robust_classifier, path, reference="test")
    return ["-m", "robrep_eval", "--model", str(path), *ARGUMENTS]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The result of one process that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    _start([*command, *ATTACKS, "--output", str(output)]).wait()
    return _result(output)


def _start(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def _result(output: Path) -> Any:
    found = read_result(output)
    # What an uninterrupted run of one process has in common with any other.
    return found.examples, found.robust, found.evidence.count


def _wait_for(output: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    while not list(output.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def test_killed_at_any_moment_it_goes_on_to_the_same_result(
    command: list[str], whole: Any, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    arguments = [*command, *ATTACKS, "--output", str(output)]
    for pattern in ("run.json", "chunks/00000006-*"):
        process = _start(arguments)
        _wait_for(output, pattern, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (output / "result.json").exists()
    last = _start(arguments)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert _result(output) == whole


def test_two_processes_find_what_one_finds(
    command: list[str], whole: Any, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    process = _start([*TORCHRUN, *command, *ATTACKS, "--output", str(output)])
    text, errors = process.communicate()
    assert process.returncode == 0, errors
    assert text.count("robust (apgd-ce)") == 1, "one process reports"
    assert _result(output) == whole


def test_a_process_that_dies_costs_its_chunk_and_not_the_run(
    command: list[str], whole: Any, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    process = _start(
        [*TORCHRUN, "--max-restarts", "3", *command, *ATTACKS, "--output", str(output)]
    )
    _wait_for(output, "chunks/*-apgd-ce.safetensors", process)
    workers = _children(process.pid)
    os.kill(workers[-1], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert _result(output) == whole


def _children(pid: int) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    )
    return sorted(int(word) for word in found.stdout.split())
