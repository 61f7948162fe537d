"""Lipschitz encoders: their loss by hand, their steps by torchlip, weights by SVD."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deel import torchlip
from torch import nn

from pretrain.augment import augment, preset
from pretrain.data import divide
from pretrain.losses import distance_contrast
from pretrain.methods.lipschitz import make_orthogonal
from pretrain.progress import Silent
from pretrain.randomness import generator
from pretrain.recipe import Recipe, load_recipe, merge, validate
from pretrain.run_folder import TrainingFolder
from pretrain.session import Session, Surroundings
from pretrain.train import train
from zoo import datasets
from zoo.encoder import load_encoder
from zoo.errors import UserError
from zoo.lipschitz import lipschitz_constant
from zoo.nets.lipschitz import LipschitzNet
from zoo.records import Card, read_record


def recipe(**changes: Any) -> Recipe:
    """That of the embedded encoder, narrower."""
    small = {"arch_options": {"widths": [32, 16]}, "epochs": 1, **changes}
    return validate(merge(load_recipe("lipschitz-digits"), small))


def session(chosen: Recipe, folder: Path) -> Session:
    parts = divide(datasets.load("digits", "train"), chosen)
    run = TrainingFolder(folder, chosen)
    return Session(chosen, parts, run, Surroundings(), None, 0.0)


def test_the_loss_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3))
    temperature = 0.7
    points = np.concatenate([a, b])
    losses = []
    for i, anchor in enumerate(points):
        partner = (i + 5) % 10
        terms = {
            j: math.exp(-float(((anchor - other) ** 2).sum()) / temperature)
            for j, other in enumerate(points)
            if j != i
        }
        losses.append(-math.log(terms[partner] / sum(terms.values())))
    found = distance_contrast(torch.tensor(a), torch.tensor(b), temperature=temperature)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-12)


def linears(encoder: nn.Module) -> list[nn.Linear]:
    return [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)]


def norms(encoder: nn.Module) -> list[float]:
    """Largest singular value of each layer, by numpy."""
    return [
        float(np.linalg.svd(layer.weight.detach().double(), compute_uv=False)[0])
        for layer in linears(encoder)
    ]


def test_steps_are_those_of_torchlip_and_adam(tmp_path: Path) -> None:
    """The whole loop beside torchlip's own network, on the same batches and views."""
    chosen = recipe(optimizer={"schedule": "constant"})
    ours = session(chosen, tmp_path)
    theirs = torchlip.Sequential(
        nn.Flatten(),
        torchlip.SpectralLinear(64, 32),
        torchlip.GroupSort2(),
        torchlip.SpectralLinear(32, 16),
        k_coef_lip=1.0,
    )
    for own, other in zip(linears(ours.method.encoder), linears(theirs), strict=True):
        other.load_state_dict(own.state_dict())
    adam = torch.optim.Adam(theirs.parameters(), lr=chosen.optimizer.lr)
    ours.module.train()
    for step, rows in enumerate(ours.batches.epoch(0)):
        draws = generator(chosen.seed, "step", step, 0)
        views = [augment(rows.x, preset("digits", 1), draws) for _ in "ab"]
        a, b = theirs(torch.cat(views)).chunk(2)
        loss = distance_contrast(a, b, temperature=1.0)
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert ours.step(rows, step)["contrast"] == pytest.approx(loss.item(), rel=1e-5)
    x = torch.rand(20, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.method.export()(x), theirs(x), rtol=0, atol=1e-5
        )


def test_an_export_stretches_nothing_and_leaves_the_training_alone(
    tmp_path: Path,
) -> None:
    method = session(recipe(), tmp_path).method
    before = {key: value.clone() for key, value in method.state_dict().items()}
    found = method.export()
    assert all(torch.equal(method.state_dict()[key], before[key]) for key in before)
    assert len(norms(found)) == 2
    assert all(0.99 < norm <= 1 for norm in norms(found))
    assert 0.99 < lipschitz_constant(found) <= 1


class Cut(Silent):
    """Breaks off in the third epoch."""

    def step(self, done: int, text: str) -> None:
        if done > 12:
            raise KeyboardInterrupt


def test_a_run_separates_images_and_goes_on_after_a_cut(tmp_path: Path) -> None:
    chosen = recipe(epochs=4, checkpoint_minutes=0)
    whole = train(chosen, tmp_path / "whole")
    losses = [x["loss"] for x in TrainingFolder(tmp_path / "whole", chosen).metrics()]
    assert losses[-1] < losses[0] - 0.02
    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path / "cut", Surroundings(report=Cut()))
    cut = train(chosen, tmp_path / "cut")
    name = "model.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert lipschitz_constant(load_encoder(whole / name)) <= 1
    card = read_record(whole / "card.json", Card)
    assert (card.training.method, card.training.labels) == ("lipschitz-contrast", False)
    assert card.training.passes == 4 * 6


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    other = merge(load_recipe("lipschitz-digits"), {"arch": "resnet_s8"})
    other["arch_options"] = {}
    with pytest.raises(UserError, match="set arch to lipschitz_dense"):
        train(validate(other), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_torchlip_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deel", None)
    with pytest.raises(UserError, match="pip install 'deel-torchlip"):
        make_orthogonal(LipschitzNet(16, [8]))
