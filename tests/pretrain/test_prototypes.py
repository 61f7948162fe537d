"""Soft prototypes against scikit-learn's mixture of spheres."""

from __future__ import annotations

import copy

import numpy as np
import pretraining as tiny
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pretrain import augment
from pretrain.clustering import centres
from pretrain.methods.prototypes import Prototypes


@pytest.fixture
def features() -> Tensor:
    """Some clouds whose coordinates have different units."""
    rng = torch.Generator().manual_seed(0)
    clouds = torch.randn(4, 1, 8, generator=rng) * 2
    z = clouds + torch.randn(4, 50, 8, generator=rng)
    return z.flatten(0, 1) * torch.logspace(-0.4, 0.4, 8) + 3


def _posterior(z: Tensor, temperature: float) -> Tensor:
    """Of equally heavy spheres around the k-means centres; the stated variance."""
    s = ((z - z.mean(0)) / z.std(0, correction=0)).double()
    c = centres(s.float(), 3, seed=5).double()
    nearest = (s[:, None] - c).square().mean(dim=2).amin(dim=1)
    variance = temperature * float(nearest.mean()) * 8**0.5
    mixture = GaussianMixture(3, covariance_type="spherical")
    mixture.means_, mixture.weights_ = c.numpy(), np.full(3, 1 / 3)
    mixture.covariances_ = np.full(3, variance)
    mixture.precisions_cholesky_ = mixture.covariances_**-0.5
    return torch.from_numpy(mixture.predict_proba(s.numpy())).float()


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_the_assignment_is_a_mixtures_posterior(
    features: Tensor, temperature: float
) -> None:
    made = tiny.method("prototypes", options={"temperature": temperature})
    made.prepare(features, 5)
    assert isinstance(made, Prototypes)
    found, true = made._logits(features).softmax(1), _posterior(features, temperature)
    assert not any(p.requires_grad for p in made.assignment.parameters())
    torch.testing.assert_close(found, true, rtol=0, atol=5e-3)
    assert 0.01 < float((found > 0.02).float().mean()) < 0.9  # soft, and not flat


def test_the_loss_is_the_cross_entropy_of_the_attacked_student(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(augment, "WEAK_SHIFT", 0.0)
    made = tiny.method("prototypes")
    before, batch = copy.deepcopy(made), tiny.batch()
    found: list[Tensor] = []
    attack = made.attack
    made.attack = lambda *a, **k: found.append(attack(*a, **k)) or found[0]  # type: ignore
    loss = {name: float(part.detach()) for name, part in made(batch).items()}
    with torch.no_grad():
        p = before.assignment(before.teacher(batch.x)).softmax(dim=1)  # type: ignore
        logits = before.assignment(before.encoder(found[0]))  # type: ignore
        q = logits.log_softmax(dim=1)
    assert loss == pytest.approx({"adversarial": -float((p * q).sum() / 6)}, rel=1e-4)
