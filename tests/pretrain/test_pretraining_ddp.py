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

from pretrain.recipe import merge, validate
from pretrain.train import train
from zoo.encoder import load_encoder

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
    assert done.returncode == 0, done.stderr[:3000] + done.stderr[-2000:]
    found: dict[str, dict[str, Tensor]] = torch.load(path, weights_only=True)
    return found


@pytest.mark.parametrize("name", ddp_worker.NAMES)
def test_two_processes_give_the_loss_and_gradients_of_one(
    two: dict[str, dict[str, Tensor]], name: str
) -> None:
    made = ddp_worker.build(name)
    one = ddp_worker.gradients(made, made, slice(None))
    assert two[name].keys() == one.keys()
    # Some gradients, as of biases that the loss does not see, are rounding alone.
    atol = 1e-6 * max(1.0, *(float(value.abs().max()) for value in one.values()))
    for key, value in one.items():
        torch.testing.assert_close(two[name][key], value, rtol=2e-4, atol=atol, msg=key)


def test_processes_share_out_features_and_statistics(
    two: dict[str, dict[str, Tensor]],
) -> None:
    one, found = ddp_worker.shared(), two["shared"]
    for name in ("z", "few", "mean", "std"):
        torch.testing.assert_close(found[name], one[name])
    assert len(one["z"]) == 47
    # Half of 47 and 3 images each; of the 3, in one block, one process sees one more.
    assert float(one["mean_seen"]) == 50
    assert float(found["mean_seen"]) == 25.5


def test_a_run_in_two_processes_leaves_one_run_folder_and_the_weights_of_one(
    tmp_path: Path,
) -> None:
    """Without batch statistics; in parts of a batch too."""
    from test_pretraining_runs import TINY

    change = {
        "method": "pgd-at",
        "norms": "frozen",
        "threat": {"norm": "L2", "eps": 0.5},  # rounding flips no sign of its steps
        "draws": "image",
        "augment": {"flip": 0.5},
        "optimizer": {"lr": 0.05, "warmup": 0.1},
        "average": 0.9,
    }
    content, out = merge(TINY, change), tmp_path / "two"
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(json.dumps(content))
    done = _torchrun("-m", "pretrain", str(recipe), "--output", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert done.stdout.strip() == str(out / "last")  # said once
    train(validate(content), tmp_path / "one")
    train(validate({**content, "accumulate": 4}), tmp_path / "parts")
    one, two, parts = (
        load_encoder(tmp_path / run / "last" / "model.safetensors").state_dict()
        for run in ("one", "two", "parts")
    )
    for name, value in one.items():
        for other in (two, parts):
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5)
