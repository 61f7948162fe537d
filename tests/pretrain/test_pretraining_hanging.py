"""Of two processes that train, the one that is stopped, hangs or dies is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hanging_training
import pytest
from test_pretraining_runs import TINY

from pretrain.recipe import merge
from zoo.processes import PATIENCE_IN

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # several processes on a busy machine
]


def _start(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """Two processes with a recipe that nobody waits for the end of."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(merge(TINY, {"epochs": 10000})))
    words = (*words, str(recipe), "--output", str(tmp_path / "run"))
    return subprocess.Popen(
        [*TORCHRUN, "--nproc-per-node", "2", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", PATIENCE_IN: "20"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _child(pid: int, rank: int) -> int:
    """The process of that rank among those that torchrun started."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
    )
    for word in found.stdout.split():
        if f"\0RANK={rank}\0" in Path(f"/proc/{word}/environ").read_text():
            return int(word)
    raise AssertionError(f"no process {rank}")


def _trains(run: Path, process: subprocess.Popen[str]) -> None:
    while not (run / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("rank", "sign"), [(0, signal.SIGSTOP), (1, signal.SIGSTOP), (1, signal.SIGKILL)]
)
def test_a_process_that_is_stopped_or_killed_is_named(
    tmp_path: Path, rank: int, sign: signal.Signals
) -> None:
    process = _start(tmp_path, "-m", "pretrain")
    _trains(tmp_path / "run", process)
    os.kill(_child(process.pid, rank), sign)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    named = f"Error: process {rank} of this training ended"
    killed = sign == signal.SIGKILL  # torchrun ends the other one at once, and tells
    assert named in errors or (killed and f"rank      : {rank}" in errors), errors
    assert "session.py" not in errors, "no traceback but torchrun's own"


def test_a_process_that_hangs_elsewhere_is_named(tmp_path: Path) -> None:
    """It lives, and comes to no more meetings."""
    process = _start(tmp_path, hanging_training.__file__, "1")
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert "Error: process 1 of this training ended or hung" in errors
