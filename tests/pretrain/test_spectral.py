"""Spectral clusters against shapes whose parts are known, and the loss by hand."""

from __future__ import annotations

import copy

import pretraining as tiny
import pytest
import torch
from sklearn.datasets import make_moons
from torch import Tensor

from pretrain import augment, clustering
from pretrain.clustering import cluster, half_whitened, votes


@pytest.fixture
def moons() -> tuple[Tensor, Tensor]:
    """Two arcs on a sphere, so that angles tell them apart, and which is which."""
    flat, y = make_moons(600, noise=0.04, random_state=0)
    plane = torch.from_numpy(flat).float() - torch.tensor([0.5, 0.25])
    height = (4 - plane.square().sum(1, keepdim=True)).sqrt()
    z = torch.cat([plane, height], dim=1)
    return torch.cat([z, -z]), torch.from_numpy(y).repeat(2)


def _agreement(numbers: Tensor, y: Tensor) -> float:
    """Share of the points whose cluster has mostly their label."""
    table = torch.zeros(int(numbers.max()) + 1, 2)
    table.index_put_((numbers, y), torch.ones(len(y)), accumulate=True)
    return float(table.amax(dim=1).sum()) / len(y)


def test_clusters_follow_arcs_that_no_sphere_holds(
    moons: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four arcs (two and their mirror images); a half of the points votes only."""
    z, y = moons
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
    z, y = z[order], y[order]
    monkeypatch.setattr(clustering, "SAMPLE", 600)
    found = votes(z, 4, 5, seed=0)
    assert found.shape == (1200, 5)
    assert _agreement(found[:, 0], y) > 0.99
    assert _agreement(found[:, 4], y) > 0.99
    assert _agreement(cluster(z, 4, seed=0), y) < 0.95
    assert torch.equal(found, votes(z, 4, 5, seed=0))


def test_half_whitening_is_a_fourth_root_of_the_covariance() -> None:
    """Cosines as after multiplication with the root of the root of its inverse."""
    rng = torch.Generator().manual_seed(0)
    mixed = torch.randn(6, 6, generator=rng)
    z = torch.randn(500, 6, generator=rng) @ mixed + 3
    sigma = torch.cov(z.double().T)
    values, vectors = torch.linalg.eigh(sigma)
    root = vectors @ (values**-0.25).diag() @ vectors.T
    plain = (z.double() - z.double().mean(0)) @ root
    cosines = torch.nn.functional.normalize(plain, dim=1)
    made = half_whitened(z).double()
    torch.testing.assert_close(made @ made.T, cosines @ cosines.T, rtol=0, atol=1e-5)


def test_constant_features_are_left_out() -> None:
    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    made = half_whitened(torch.cat([z, torch.ones(50, 2)], dim=1))
    assert made.shape == (50, 3)
    torch.testing.assert_close(made @ made.T, half_whitened(z) @ half_whitened(z).T)


def test_the_loss_is_the_cross_entropy_with_the_votes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(augment, "WEAK_SHIFT", 0.0)
    made = tiny.method("spectral")
    before, batch = copy.deepcopy(made), tiny.batch()
    found: list[Tensor] = []
    attack = made.attack
    made.attack = lambda *a, **k: found.append(attack(*a, **k)) or found[0]  # type: ignore
    loss = {name: float(part.detach()) for name, part in made(batch).items()}
    with torch.no_grad():
        logits = before.classifier.train()(found[0])  # type: ignore
        log_p = logits.log_softmax(dim=1)
    each = [float(log_p[i, k]) for i in range(len(batch.y)) for k in batch.y[i]]
    assert loss == pytest.approx({"adversarial": -sum(each) / len(each)}, rel=1e-4)
