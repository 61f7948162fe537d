"""A pretraining that is killed in the middle of an epoch goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.recipe import Recipe, validate
from pretrain.run_folder import YOUNGER
from pretrain.session import Surroundings
from pretrain.train import train


class KilledError(Exception):
    """In place of a signal."""


class Watching:
    """Counts steps, and ends the process, as it were, after one of them."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.said = last, ""
        self.steps: list[int] = []

    def say(self, text: str) -> None:
        self.said += text

    def begin(self, title: str, steps: int, done: int) -> None:
        assert steps == 8

    def step(self, done: int, text: str) -> None:
        self.steps.append(done)
        if done == self.last:
            raise KilledError


def _recipe(minutes: float) -> Recipe:
    return validate(
        {
            "name": "tiny",
            "method": "simclr",
            "data": "digits",
            "arch": "resnet_s8",
            "arch_options": {"widths": [4, 8], "blocks": [1, 1]},
            "batch": 64,
            "limit": 300,
            "epochs": 2,
            "average": 0.9,
            "monitor": {"every": 0},
            "checkpoint_minutes": minutes,
        }
    )


def _train(folder: Path, minutes: float, last: int | None = None) -> Watching:
    watching = Watching(last)
    train(_recipe(minutes), folder, Surroundings(report=watching))
    return watching


def _left(folder: Path) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Weights, and the loss of each epoch."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return state["method"], [json.loads(line)["loss"] for line in lines]


def test_killed_between_any_steps_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    assert _train(tmp_path / "whole", 1e-9).steps == list(range(1, 9))
    for last in (2, 6):  # each checkpoint is of the step before
        with pytest.raises(KilledError):
            _train(tmp_path / "parts", 1e-9, last)
    ended = _train(tmp_path / "parts", 1e-9)
    assert ended.steps == [7, 8]
    assert "resumed after epoch 1 and 2 steps" in ended.said
    (weights, losses), (other, others) = map(
        _left, (tmp_path / "whole", tmp_path / "parts")
    )
    assert weights.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in weights.items())
    assert losses == pytest.approx(others)


def test_a_checkpoint_of_an_older_version_is_taken_up(tmp_path: Path) -> None:
    """Those lie between epochs; with no minutes between them, so do ours."""
    with pytest.raises(KilledError):
        _train(tmp_path, 0, 6)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 0)
    torch.save({k: v for k, v in state.items() if k not in YOUNGER}, path)
    assert _train(tmp_path, 0).steps == [5, 6, 7, 8]
