"""Pools of threads, as real processes have them: in a child, libraries just loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from zoo.threads import BLAS, TORCH, WAITING, fitting_threads, network_work

pytestmark = pytest.mark.slow


SEEN = """
import json, sys
import torch
from threadpoolctl import threadpool_info
from zoo.threads import fitting_threads

def seen():
    pools = threadpool_info()
    blas = [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]
    return {"blas": blas, "torch": torch.get_num_threads()}

import scipy.linalg
torch.set_num_threads(int(sys.argv[1]) or torch.get_num_threads())
found = [seen()]
with fitting_threads(float(sys.argv[2])):
    found.append(seen())
    with fitting_threads(1):
        found.append(seen())
    found.append(seen())
found.append(seen())
print(json.dumps(found))
"""
FIT = """
import json
import numpy, scipy.linalg, scipy.optimize, torch
from threadpoolctl import threadpool_info
from robrep_eval.probes.logistic import fit_linear

def blas():
    pools = threadpool_info()
    return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]

inside, minimize = [], scipy.optimize.minimize
def watched(*args, **options):
    inside.extend(blas())
    return minimize(*args, **options)
scipy.optimize.minimize = watched
before = blas()
z = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
fit_linear(z, (z[:, 0] > 0).long(), classes=2, l2=0.1)
print(json.dumps([before, inside, blas()]))
"""
COMMAND = """
import json, os, sys
import click
from zoo.commands.shell import run

@click.command()
def shown():
    print(json.dumps([os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules]))

run(shown, "shown")
"""


def _child(code: str, *arguments: str, **variables: str) -> Any:
    ours = {*TORCH, *BLAS, *WAITING}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=env | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


needs_cores = pytest.mark.skipif(
    (os.cpu_count() or 1) < 2, reason="one core has one thread anyway"
)


@needs_cores
def test_inside_blas_has_one_thread_and_torch_what_the_work_is_worth() -> None:
    before, inside, small, again, after = _child(SEEN, "3", "2e8")
    assert max(before["blas"]) > 1
    assert before["torch"] == 3
    assert inside == {"blas": [1] * len(before["blas"]), "torch": 2}
    assert small == {**inside, "torch": 1}
    assert again == inside
    assert after == before


@needs_cores
def test_large_work_leaves_torch_all_its_threads() -> None:
    before, inside, *_ = _child(SEEN, "0", "inf")
    assert inside["torch"] == before["torch"]


@needs_cores
def test_the_users_number_of_threads_of_torch_is_kept() -> None:
    found = _child(SEEN, "0", "1", OMP_NUM_THREADS="2")
    assert [row["torch"] for row in found] == [2] * 5


@needs_cores
def test_the_users_number_of_threads_of_blas_is_kept() -> None:
    found = _child(SEEN, "0", "1", OPENBLAS_NUM_THREADS="2")
    assert [row["blas"] for row in found] == [found[0]["blas"]] * 5
    assert max(found[0]["blas"]) == 2
    assert found[1]["torch"] == 1


@needs_cores
def test_inside_a_fit_blas_has_one_thread_and_its_own_number_after() -> None:
    before, inside, after = _child(FIT)
    assert max(before) > 1
    assert inside == [1] * len(before)
    assert after == before


def test_an_error_restores_the_threads() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), fitting_threads(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_a_command_lets_waiting_threads_sleep_unless_the_user_said_how() -> None:
    assert _child(COMMAND) == ["passive", False]
    assert _child(COMMAND, OMP_WAIT_POLICY="active") == ["active", False]
    assert _child(COMMAND, GOMP_SPINCOUNT="9") == [None, False]
    assert _child("import torch\n" + COMMAND) == [None, True]


def test_the_work_of_a_network_grows_with_weights_and_pixels() -> None:
    layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert network_work(layer, (3, 10, 20)) == 3 * 8 * 9 * 10 * 20
