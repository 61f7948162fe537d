"""Two processes under torchrun: the loss and gradients of one; one run, one result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import ddp_worker
import pytest
import torch
from torch import Tensor

from pretrain import augment
from zoo.ball import random_start

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # several processes on a busy machine
]


def _torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
    }
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", *arguments),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """What two processes found."""
    path = tmp_path_factory.mktemp("ddp") / "found.pt"
    done = _torchrun(str(HERE / "ddp_worker.py"), str(path))
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Tensor]] = torch.load(path, weights_only=True)
    return found


@pytest.mark.parametrize("name", ddp_worker.NAMES)
def test_two_processes_give_the_loss_and_gradients_of_one(
    two: dict[str, dict[str, Tensor]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `build` replaces both; this puts them back afterwards.
    monkeypatch.setattr(augment, "WEAK_SHIFT", augment.WEAK_SHIFT)
    monkeypatch.setattr("pretrain.methods.base.random_start", random_start)
    made = ddp_worker.build(name)
    one = ddp_worker.gradients(made, made, slice(None))
    assert two[name].keys() == one.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[name][key], value, rtol=2e-4, atol=1e-6, msg=key)


def test_a_run_in_two_processes_leaves_one_run_folder(tmp_path: Path) -> None:
    from test_pretraining_runs import TINY

    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps({**TINY, "method": "acl"}))
    out = tmp_path / "run"
    done = _torchrun("-m", "pretrain", str(recipe), "--output", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert (out / "last" / "model.safetensors").is_file()
    assert done.stdout.strip() == str(out / "last")  # said once
