"""Runs: what they leave, and what they refuse. The network is tiny, the data real."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pretrain import data as data_module
from pretrain.build import pixel_statistics
from pretrain.data import Batches, divide
from pretrain.methods.simclr import SimCLR
from pretrain.recipe import Recipe, merge, validate
from pretrain.run_folder import CHECKPOINT, TrainingFolder
from pretrain.train import Surroundings, train
from zoo import datasets
from zoo.datasets.base import Dataset, from_array
from zoo.encoder import load_encoder
from zoo.errors import RobrepError, UserError
from zoo.files import sha256_file
from zoo.records import Card, read_record

TINY: dict[str, Any] = {
    "name": "tiny",
    "method": "tarrl",
    "data": "digits",
    "arch_options": {"widths": [8, 8], "blocks": [1, 1], "stem_stride": 2},
    "threat": {"norm": "Linf", "eps": 0.1},
    "attack": {"steps": 1},
    "projector": {"hidden": 8, "out": 4},
    "batch": 32,
    "limit": 200,
    "epochs": 2,
    "checkpoint_minutes": 0,
    "monitor": {"every": 1, "steps": 2},
}


def _recipe(**change: Any) -> Recipe:
    return validate(merge(TINY, change))


def _weights(folder: Path) -> str:
    return sha256_file(folder / "last" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with a teacher, dual batch norm apart."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    recipe = _recipe(
        options={"reference": "teacher"},
        teacher={"method": "simclr", "epochs": 1, "threat": None},
        average=0.9,
    )
    train(recipe, folder, Surroundings(command="robrep-pretrain tiny"))
    return folder


def test_a_run_leaves_encoders_with_cards(finished: Path) -> None:
    for kind in ("last", "best"):
        encoder = load_encoder(finished / kind / "model.safetensors")
        card = read_record(finished / kind / "card.json", Card)
        assert card.dim == encoder.dim == 8
        assert card.sha256 == sha256_file(finished / kind / "model.safetensors")
        assert card.training.command == "robrep-pretrain tiny"
        assert card.training.recipe["options"]["weight"] == 10  # defaults are stated
        assert card.training.threat is not None
        assert not card.training.labels
    # 2 epochs at 2 K + 7 passes with K = 1, after a teacher of one epoch at 6.
    assert read_record(finished / "last" / "card.json", Card).training.passes == 24


def test_a_run_leaves_metrics_and_curves(finished: Path) -> None:
    text = (finished / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert line["loss"] == pytest.approx(
            line["loss/clean"] + line["loss/displacement"]
        )
        assert line["images_per_second"] > 0
        assert 0 <= line["held_out/robust"] <= line["held_out/clean"] <= 1
    root = ET.parse(finished / "curves.svg").getroot()
    assert root.tag.endswith("svg")


def test_the_checkpoint_needs_no_unpickling(finished: Path) -> None:
    state = torch.load(finished / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 2


def test_the_same_command_again_has_nothing_to_do(finished: Path) -> None:
    class Said:
        texts: list[str] = []  # noqa: RUF012

        def say(self, text: str) -> None:
            self.texts.append(text)

        def begin(self, title: str, steps: int, done: int) -> None:
            raise AssertionError("trained again")

        def step(self, done: int, text: str) -> None:
            raise AssertionError("trained again")

    recipe = validate(_yaml(finished / "recipe.yaml"))
    before = _weights(finished)
    train(recipe, finished, Surroundings(report=Said()))
    assert "nothing left to do" in Said.texts[-1]
    assert _weights(finished) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1", "not valid YAML"),
        ("", "must be a mapping"),
        ("name: a\nepochs: 1\nmethode: b", "unknown key 'methode'"),
    ],
)
def test_a_damaged_recipe_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UserError, match=f"cannot be continued: .*{words}"):
        TrainingFolder(tmp_path, _recipe())


def test_a_recipe_older_than_a_setting_is_the_same(tmp_path: Path) -> None:
    recipe = _recipe()
    old = recipe.model_dump(mode="json")
    del old["precision"]
    (tmp_path / "recipe.yaml").write_text(json.dumps(old))
    TrainingFolder(tmp_path, recipe)


def _yaml(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text())


def test_a_changed_recipe_is_refused_with_its_keys(finished: Path) -> None:
    content = _yaml(finished / "recipe.yaml")
    changed = validate(merge(content, {"seed": 1, "optimizer": {"lr": 0.5}}))
    before = _weights(finished)
    with pytest.raises(UserError, match=r"other settings of optimizer\.lr, seed"):
        train(changed, finished)
    assert _weights(finished) == before


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes on a busy machine
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_was_killed_ends_with_the_same_weights(
    tmp_path: Path, precision: str
) -> None:
    """kill -9 in a real process; the rest here; then compared bit by bit."""
    content = merge(TINY, {"epochs": 8, "average": 0.9, "monitor": {"every": 4}})
    content["precision"] = precision
    content["options"] = {"norms": "dual", "ramp": 0.5}
    file, whole, cut = tmp_path / "tiny.yaml", tmp_path / "whole", tmp_path / "cut"
    file.write_text(json.dumps(content))
    _start_and_kill(file, cut, epochs=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process that was killed
    try:
        for folder in (whole, cut):
            train(validate(content), folder)
    finally:
        torch.set_num_threads(threads)
    assert _weights(cut) == _weights(whole)
    lines = (cut / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))


def _start_and_kill(recipe: Path, folder: Path, epochs: int) -> None:
    """Kills the run without warning once so many epochs are logged."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pretrain", str(recipe), "-q", "--output", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= epochs):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "last").exists()


def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    recipe = _recipe(method="simclr", epochs=3, monitor={"every": 0})
    steps = 0
    forward = SimCLR.forward

    def breaking(self: SimCLR, batch: Any) -> Any:
        nonlocal steps
        steps += 1
        parts = forward(self, batch)
        return {k: v * (float("nan") if steps == 9 else 1) for k, v in parts.items()}

    monkeypatch.setattr(SimCLR, "forward", breaking)
    words = r"'contrast' is nan at step 9 of 18 \(epoch 2\).*checkpoint\.pt"
    with pytest.raises(RobrepError, match=words):
        train(recipe, folder)
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["epoch"] == 1
    train(recipe, folder)  # the cause is gone: goes on
    assert (folder / "last").is_dir()


def test_weights_that_are_not_finite_reach_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last step of epoch 2 breaks them; its own loss was finite.
    step = torch.optim.SGD.step
    steps = 0

    def breaking(self: torch.optim.SGD, *args: Any, **keywords: Any) -> Any:
        nonlocal steps
        steps += 1
        done = step(self, *args, **keywords)
        if steps == 12:
            self.param_groups[0]["params"][0].data.fill_(float("inf"))
        return done

    monkeypatch.setattr(torch.optim.SGD, "step", breaking)
    recipe = _recipe(method="simclr", epochs=3, monitor={"every": 0})
    with pytest.raises(RobrepError, match=r"weights .* at step 12 of 18 \(epoch 2\)"):
        train(recipe, tmp_path / "a")
    state = torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 1


def test_the_smallest_run(tmp_path: Path) -> None:
    recipe = _recipe(limit=4, batch=2, epochs=1)
    train(recipe, tmp_path / "a")
    assert "PGD" in (tmp_path / "a" / "curves.svg").read_text()


@contextmanager
def _disk_of(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    run = TrainingFolder(tmp_path, _recipe())
    state: dict[str, Any] | None = dict.fromkeys(CHECKPOINT)
    assert state is not None
    run.save({**state, "epoch": 1, "method": torch.ones(10)})
    with _disk_of(100_000), pytest.raises(OSError, match="too large"):
        run.save({**state, "epoch": 2, "method": torch.ones(1_000_000)})
    state = run.load(truncate=False)
    assert state is not None
    assert state["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run = TrainingFolder(tmp_path, _recipe())
    run.checkpoint_file.write_bytes(b"not a checkpoint")
    half = tmp_path / ".checkpoint.pt.abc12_de"  # as a killed process leaves it
    half.write_bytes(b"half")
    with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read"):
        run.load(truncate=True)
    assert not half.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 256}, "batch 256 is larger than the 180 training images"),
        ({"limit": 2}, r"larger than the 1 training images of .* \(2 less 1 held out"),
        ({"threat": {"eps": 8}}, "did you mean 8/255"),
        (
            {
                "method": "advcl",
                "teacher": {"method": "simclr", "epochs": 1, "threat": None},
            },
            "asks for 500 clusters of 180 training images; set options.clusters",
        ),
        ({"arch": "resnet_s9"}, "did you mean 'resnet_s8'"),
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"epochs": None, "passes": 5}, "5 passes do not pay for one epoch of 'tarrl'"),
        (
            {"options": {"reference": "teacher"}, "teacher": "zoo:simclr-digits"},
            "must have the same architecture",
        ),
        (
            {"options": {"reference": "teacher"}, "teacher": {"epochs": 1}},
            "must name its method",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        train(_recipe(**change), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def _numbered(n: int) -> Dataset:
    """Image i has the value i in its first pixel and i // 256 in its second."""
    pixels = np.zeros((n, 1, 2, 2), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(n) % 256
    pixels[:, 0, 0, 1] = np.arange(n) // 256
    return from_array(
        pixels, np.zeros(n, np.int64), name="n", split="train", classes=["a", "b"]
    )


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_an_epoch_shows_each_image_once_and_the_order_changes(in_memory: int) -> None:
    data, recipe = _numbered(320), _recipe()
    labels = torch.arange(320)[:, None]
    batches = Batches(data, labels, recipe, torch.device("cpu"), in_memory)
    first = [
        (255 * x[:, 0, 0] @ torch.tensor([1.0, 256.0]), y)
        for x, y, _ in batches.epoch(0)
    ]
    for numbers, y in first:
        torch.testing.assert_close(numbers.round().long(), y[:, 0])
    seen = torch.cat([y for _, y in first]).flatten()
    assert torch.equal(seen.sort().values, torch.arange(320))
    again = torch.cat([rows.y for rows in batches.epoch(0)]).flatten()
    other = torch.cat([rows.y for rows in batches.epoch(1)]).flatten()
    assert torch.equal(seen, again)
    assert not torch.equal(seen, other)


def test_a_large_set_is_not_kept() -> None:
    batches = Batches(
        _numbered(320), torch.empty(320, 0), _recipe(), torch.device("cpu"), 1000
    )
    assert batches.kept is None
    assert data_module.IN_MEMORY >= 60_000 * 28 * 28  # the usual sets are kept


def test_pixel_statistics_are_those_of_all_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1203, 3, 2, 2), np.uint8)
    data = from_array(
        pixels, np.zeros(1203, np.int64), name="n", split="train", classes=["a"]
    )
    mean, deviation = pixel_statistics(data)
    channels = pixels.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(mean, channels.mean(axis=1))
    np.testing.assert_allclose(deviation, channels.std(axis=1, ddof=1))


def test_held_out_images_are_never_trained_on() -> None:
    data = datasets.load("digits", "train")
    parts = divide(data, _recipe(limit=None))
    trained, held = set(parts.train.positions), set(parts.held_out.positions)
    assert len(held) == 144
    assert not trained & held
    assert len(trained | held) == len(data)


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "checkpoint.pt", "curves.svg", "last/card.json"]
)
def test_files_of_others_are_not_taken_for_a_run(tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"is not of a run of robrep-pretrain"):
        train(_recipe(), tmp_path)
    assert mine.read_text() == "mine"
    home = tmp_path / "robrep-home"  # locks lie there
    left = [p for p in tmp_path.rglob("*") if p.is_file() and home not in p.parents]
    assert left == [mine]


def test_a_run_beside_files_of_others_leaves_them(tmp_path: Path) -> None:
    names = ("thesis.tex", ".checkpoint.pt.bak", "last.txt")
    for name in names:
        (tmp_path / name).write_text("mine")
    train(_recipe(epochs=1), tmp_path)
    train(_recipe(epochs=1), tmp_path)
    assert all((tmp_path / name).read_text() == "mine" for name in names)
