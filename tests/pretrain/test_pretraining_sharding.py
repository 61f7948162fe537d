"""FSDP in two processes: the weights of DDP, half of them each; and a killed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pretraining as tiny
import pytest
import sharding_worker
import torch
from test_pretraining_runs import TINY

from pretrain.recipe import merge, validate
from pretrain.sharding import check_sharding
from pretrain.train import train
from zoo.encoder import load_encoder
from zoo.errors import UserError

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
CHANGE: dict[str, Any] = {
    "method": "pgd-at",
    "norms": "frozen",
    "threat": {"norm": "L2", "eps": 0.5},  # rounding flips no sign of its steps
    "draws": "image",
    "augment": {"flip": 0.5},
    "optimizer": {"name": "adamw", "lr": 0.01, "warmup": 0.1, "clip": 1.0},
    "average": 0.9,
    "epochs": 4,
    "accumulate": 2,
}
FSDP = {"sharding": "fsdp", "checkpoint_activations": True, "checkpoint_minutes": 1e-9}


def _start(*words: str) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parents[1]), str(here.parent), str(here)])
    return subprocess.Popen(
        [*TORCHRUN, "--nproc-per-node", "2", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_method_has_the_weights_of_ddp_and_each_process_half(
    tmp_path: Path,
) -> None:
    process = _start(sharding_worker.__file__, str(tmp_path / "found.pt"))
    _, errors = process.communicate()
    assert process.returncode == 0, errors[:3000] + errors[-2000:]
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    assert list(found) == sharding_worker.NAMES
    for name, ((plain, _), (shared, held)) in found.items():
        fresh = sharding_worker.build(name).state_dict()
        moved = [k for k, v in plain.items() if not torch.equal(v, fresh[k])]
        assert moved, name
        for key, value in plain.items():
            torch.testing.assert_close(shared[key], value, rtol=1e-5, atol=1e-6)
        assert held < 0.6, name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_to_the_weights_of_one_process(tmp_path: Path) -> None:
    """With clipping, average, parts of batches, and blocks that are computed again; in
    the middle of an epoch."""
    content = merge(TINY, CHANGE)
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "two"
    recipe.write_text(json.dumps(merge(content, FSDP)))
    words = ["-m", "pretrain", str(recipe), "--output", str(out)]
    process = _start(*words)
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    process = _start(*words)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "resumed after epoch" in errors
    train(validate(content), tmp_path / "one")
    one, two = (
        load_encoder(tmp_path / run / "last" / "model.safetensors").state_dict()
        for run in ("one", "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("pgd-at", {"norms": "batch"}, "batch statistics"),
        ("simclr", {}, "batch statistics"),  # of its projector
        ("pgd-at", {"optimizer": {"name": "lars"}}, "optimizer.name 'lars'"),
        ("pgd-at", {"compile": True, "checkpoint_activations": False}, "compile"),
        ("prototypes", {}, "method prototypes"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(
    name: str, change: dict[str, Any], reason: str
) -> None:
    """In one process too, so that a recipe that is tried out is one for several."""
    settings = {**CHANGE, "sharding": "fsdp", "method": name, "accumulate": 1}
    recipe = validate(merge(merge(TINY, settings), change))
    with pytest.raises(UserError, match=f"fsdp cannot be had with {reason}"):
        check_sharding(tiny.method(name), recipe)


@pytest.mark.parametrize("name", ["pgd-at", "trades", "fare", "displacement"])
def test_frozen_norms_and_no_projector_may_be_shared_out(name: str) -> None:
    settings = {**CHANGE, "sharding": "fsdp", "method": name, "accumulate": 1}
    check_sharding(tiny.method(name), validate(merge(TINY, settings)))
