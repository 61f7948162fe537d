"""Real processes: killed and resumed, and several sharing one evaluation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.classifier import Classifier
from zoo.classifier_file import save_classifier
from zoo.encoder import Encoder, EncoderSpec, save_encoder
from zoo.files import read_tensors
from zoo.result_file import read_result
from zoo.verification import verify_folder

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
    measured = found.measurements.model_dump(mode="json")
    return found.examples, found.robust, found.evidence.count, measured


def _wait_for(output: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    while not list(output.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_processes_find_what_one_finds(
    command: list[str], whole: Any, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    process = _start([*TORCHRUN, *command, *ATTACKS, "--output", str(output)])
    text, errors = process.communicate()
    assert process.returncode == 0, errors
    assert text.count("robust (apgd-ce)") == 1, "one process reports"
    assert _result(output) == whole


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.timeout(900)  # five processes that import torch, on a busy machine
def test_a_probe_that_two_processes_fit_is_that_of_one_also_when_the_first_dies(
    plain_classifier: Classifier, tmp_path: Path
) -> None:
    """Killed once features are there: both start again, and use them."""
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    model = ["-m", "robrep_eval", "--model", str(tmp_path / "encoder.safetensors")]
    arguments = [*model, *ARGUMENTS, "--attacks", "fgsm", "--health", "none"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    first = _start([*arguments, "--output", str(alone)])
    assert first.wait() == 0, first.communicate()[1]
    restarting = [*TORCHRUN, "--max-restarts", "3"]
    process = _start([*restarting, *arguments, "--output", str(together)])
    _wait_for(together, "features/*/*.safetensors", process)
    os.kill(_children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    one, two = (
        read_tensors(p / "classifier.safetensors")[0] for p in (alone, together)
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert _result(together) == _result(alone)
    assert not (together / "features").exists(), "they are not needed any more"


PHOTOGRAPHS = int(os.environ.get("ROBREP_TEST_PHOTOGRAPHS", "8"))
"""Test images of 224 pixels; a thousand take two cores a quarter of an hour."""


def _photographs(root: Path) -> Path:
    """Two classes of noise, dark and light, as JPEGs of 224 pixels."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", PHOTOGRAPHS // 2)):
        for number, name in enumerate(("dark", "light")):
            place = root / split / name
            place.mkdir(parents=True)
            for i in range(count):
                low = 80 * number
                small = draws.integers(low, low + 120, (28, 28, 3), dtype=np.uint8)
                picture = Image.fromarray(small).resize((224, 224))
                picture.save(place / f"{i}.jpg", quality=90)
    return root


@pytest.mark.long
@pytest.mark.timeout(1800)  # six processes that import torch, on a busy machine
@pytest.mark.parametrize("arch", ["timm:resnet18", "timm:vit_tiny_patch16_224"])
def test_photographs_end_to_end_with_a_killed_process(
    arch: str, tmp_path: Path
) -> None:
    """Random weights, 224 pixels: two processes, one of which dies, and one alone."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderSpec(arch=arch, shape=(3, 224, 224)))
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    photographs = _photographs(tmp_path / "photographs")
    arguments = ["-m", "robrep_eval", "--model", str(tmp_path / "encoder.safetensors")]
    arguments += ["--dataset", f"imagefolder:{photographs}", "--eps", "4/255"]
    arguments += ["--chunk-size", str(max(2, PHOTOGRAPHS // 16))]
    arguments += ["--attacks", "fgsm", "--health", "none", "-q"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    first = _start([*arguments, "--output", str(alone)])
    _, errors = first.communicate()
    assert first.returncode == 0, errors
    restarting = [*TORCHRUN, "--max-restarts", "3"]
    process = _start([*restarting, *arguments, "--output", str(together)])
    _wait_for(together, "chunks/*-fgsm.safetensors", process)
    os.kill(_children(process.pid)[-1], signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert _result(together) == _result(alone)
    one, two = (
        read_tensors(p / "classifier.safetensors")[0] for p in (alone, together)
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert verify_folder(together)
