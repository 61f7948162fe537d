"""Optimisers and schedules of a recipe: closed forms, and torch's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pretrain.data import divide
from pretrain.optimizer import build_optimizer, build_schedule
from pretrain.recipe import OptimizerSettings, Recipe
from pretrain.run_folder import TrainingFolder
from pretrain.session import Session, Surroundings
from zoo import datasets

STEPS = 3


def stepped(**settings: Any) -> tuple[nn.Linear, nn.Linear, list[torch.Tensor]]:
    """A layer before and after steps with fixed gradients of weight and bias."""
    torch.manual_seed(0)
    before, after = nn.Linear(4, 3), nn.Linear(4, 3)
    after.load_state_dict(before.state_dict())
    slopes = [torch.randn(3, 4), torch.randn(3)]
    optimizer = build_optimizer(after, OptimizerSettings(**settings))
    for _ in range(STEPS):
        for parameter, slope in zip(after.parameters(), slopes, strict=True):
            parameter.grad = slope.clone()
        optimizer.step()
    return before, after, slopes


def test_adamw_by_its_closed_form() -> None:
    """Equal gradients have m / sqrt(v) = sign(g), whatever the step."""
    lr, decay = 0.01, 0.1
    before, after, (slope, bias) = stepped(name="adamw", lr=lr, weight_decay=decay)
    expected = before.weight.detach().clone()
    for _ in range(STEPS):
        expected = (1 - lr * decay) * expected - lr * slope.sign()
    torch.testing.assert_close(after.weight.detach(), expected, rtol=1e-4, atol=1e-6)
    moved = (after.bias - before.bias).detach()  # no decay
    torch.testing.assert_close(moved, -STEPS * lr * bias.sign(), rtol=1e-4, atol=1e-6)


def test_lars_scales_weights_by_trust_and_leaves_biases_to_sgd() -> None:
    """You et al. 2017 (arXiv 1708.03888): trust |w| / (|g| + decay |w|)."""
    lr, decay, momentum, trust = 0.5, 1e-2, 0.9, 1e-3
    before, after, (slope, bias) = stepped(
        name="lars", lr=lr, weight_decay=decay, momentum=momentum
    )
    w, speed = before.weight.detach().double(), torch.zeros(3, 4, dtype=torch.float64)
    g = slope.double()
    for _ in range(STEPS):
        local = trust * w.norm() / (g.norm() + decay * w.norm())
        speed = momentum * speed + local * (g + decay * w)
        w = w - lr * speed
    torch.testing.assert_close(after.weight.detach().double(), w, rtol=1e-5, atol=1e-6)
    # Sums of 1, 1 + m, 1 + m + m^2: plain SGD, neither decay nor trust.
    factor = 3 + 2 * momentum + momentum**2
    moved = (after.bias - before.bias).detach()
    torch.testing.assert_close(moved, -lr * factor * bias, rtol=1e-4, atol=1e-6)


def test_sgd_is_torchs() -> None:
    before, after, slopes = stepped(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.2)
    groups: list[dict[str, Any]] = [
        {"params": [before.weight], "weight_decay": 0.2},
        {"params": [before.bias]},
    ]
    own = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        for parameter, slope in zip(before.parameters(), slopes, strict=True):
            parameter.grad = slope.clone()
        own.step()
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(one, other)


def rates(schedule: str, warmup: float, steps: int = 40) -> list[float]:
    """Of steps 1 to `steps`, as the session sets them."""
    settings = OptimizerSettings(schedule=schedule, lr=0.8, warmup=warmup)
    optimizer = build_optimizer(nn.Linear(2, 2), settings)
    scheduler = build_schedule(optimizer, settings, steps)
    found = []
    for step in range(steps):
        scheduler.step_update(step + 1)
        found.append({group["lr"] for group in optimizer.param_groups})
    assert all(len(one) == 1 for one in found)
    return [one.pop() for one in found]


def test_constant_stays_after_its_warmup() -> None:
    found = rates("constant", 0.25)
    assert found[:9] == pytest.approx([0.8 * n / 10 for n in range(1, 10)])
    assert found[9:] == pytest.approx([0.8] * 31)


def test_steps_drop_after_half_and_three_quarters() -> None:
    found = rates("steps", 0.0)
    assert found == pytest.approx([0.8] * 20 + [0.08] * 10 + [0.008] * 10)


def test_cosine_falls_to_zero() -> None:
    expected = [0.4 * (1 + math.cos(math.pi * n / 40)) for n in range(1, 41)]
    assert rates("cosine", 0.0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("clip", [None, 1e-3, 1e3])
def test_clip_bounds_the_norm_of_the_whole_gradient(
    clip: float | None, tmp_path: Path
) -> None:
    """One step of plain SGD moves the weights by lr times the clipped gradient."""
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "method": "simclr",
            "arch_options": {"widths": [8, 8], "blocks": [1, 1], "stem_stride": 2},
            "projector": {"hidden": 8, "out": 4},
            "optimizer": {
                "lr": 0.5,
                "momentum": 0,
                "weight_decay": 0,
                "warmup": 0,
                "schedule": "constant",
                "clip": clip,
            },
            "batch": 32,
            "limit": 64,
            "epochs": 1,
            "monitor": {"every": 0},
        }
    )
    parts = divide(datasets.load("digits", "train"), recipe)
    run = TrainingFolder(tmp_path, recipe)
    session = Session(recipe, parts, run, Surroundings(), None, 0.0)
    session.module.train()
    rows = next(session.batches.epoch(0))

    def weights() -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in session.method.parameters()])

    before = weights().double()
    session.step(rows, 0)
    moved = float((weights().double() - before).norm()) / 0.5
    if clip == 1e-3:
        assert moved == pytest.approx(clip, rel=1e-2)
    else:  # None, or far above any gradient here
        assert 0.01 < moved < 1e3
