"""Whitened measures against numpy, and against themselves under invertible maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robrep_eval.attacks.displacement import FeatureAttackSettings, displace
from robrep_eval.measures.label_free import measure_label_free
from zoo.bound import estimate_bound, features_and_logits
from zoo.classifier import Classifier
from zoo.errors import UserError
from zoo.layout import ON_CPU
from zoo.threat import ThreatModel
from zoo.whitening import whitened, whitening

SHAPE = (1, 4, 4)
WIDTH, CLASSES = 5, 3


class Mapped(nn.Module):
    """An encoder and an invertible map A z + c."""

    a: Tensor
    c: Tensor

    def __init__(self, encoder: nn.Module, a: Tensor, c: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("a", a)
        self.register_buffer("c", c)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x)
        return z @ self.a.T + self.c


def pair(seed: int) -> tuple[Classifier, Classifier, Tensor, Tensor]:
    """A classifier, the same predictor on mapped features, images and labels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, WIDTH)
        ).double()
        head = nn.Linear(WIDTH, CLASSES).double()
        u, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH).double())
        v, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH).double())
        a = u @ torch.diag(10.0 ** torch.linspace(-2, 2, WIDTH).double()) @ v
        c = 5 * torch.randn(WIDTH).double()
        x = torch.rand(40, *SHAPE).double()
        y = torch.randint(CLASSES, (40,))
    other = nn.Linear(WIDTH, CLASSES).double()
    with torch.no_grad():
        other.weight.copy_(head.weight @ torch.linalg.inv(a))
        other.bias.copy_(head.bias - other.weight @ c)
    made = [
        Classifier(g, h, classes=CLASSES, shape=SHAPE)
        for g, h in ((encoder, head), (Mapped(encoder, a, c), other))
    ]
    return made[0], made[1], x, y


def in_own_spread(classifier: Classifier, x: Tensor) -> Classifier:
    z, _ = features_and_logits(classifier, x, ON_CPU)
    return whitened(classifier, z)


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=25, deadline=None)
def test_features_have_unit_covariance_and_logits_stay(seed: int) -> None:
    _, classifier, x, _ = pair(seed)
    white = in_own_spread(classifier, x)
    u, logits = features_and_logits(white, x, ON_CPU)
    covariance = np.cov(u.numpy().T, bias=True)
    np.testing.assert_allclose(covariance, np.eye(WIDTH), atol=1e-6)
    torch.testing.assert_close(logits, classifier(x), rtol=1e-7, atol=1e-7)


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=15, deadline=None)
def test_an_invertible_map_changes_nothing(seed: int) -> None:
    one, other, x, y = pair(seed)
    threat = ThreatModel(norm="Linf", eps=0.1)
    attack = FeatureAttackSettings(steps=5)
    found = []
    for classifier in (one, other):
        white = in_own_spread(classifier, x)
        moved = displace(white.encoder, x, threat, attack)
        found.append(estimate_bound(white, x, y, {"(displacement)": moved}))
    plain = [
        estimate_bound(
            c, x, y, {"(displacement)": displace(c.encoder, x, threat, attack)}
        )
        for c in (one, other)
    ]
    for name in ("b1", "b2", "displacement", "relative_displacement", "tightness"):
        a, b = (getattr(bound, name) for bound in found)
        assert a == pytest.approx(b, rel=1e-6), name
    for name, values in found[0].examples.items():
        np.testing.assert_allclose(values, found[1].examples[name], rtol=1e-6)
    assert found[0].limits == found[1].limits
    assert plain[0].b2 != pytest.approx(plain[1].b2, rel=0.1)


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=3, deadline=None, phases=[Phase.generate])
def test_nor_does_it_change_measures_without_labels(seed: int) -> None:
    one, other, x, _y = pair(seed)
    threat = ThreatModel(norm="Linf", eps=0.1)
    attack = FeatureAttackSettings(steps=5)
    found = [
        measure_label_free(
            in_own_spread(classifier, x).encoder, x, threat, settings=attack
        )
        for classifier in (one, other)
    ]
    for name in ("remaining_distance_ratio", "margin", "universal_quantile"):
        a, b = (getattr(measured, name) for measured in found)
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6), name
    for name in ("breakaway_risk", "nearest_top1", "overlap_risk"):
        assert getattr(found[0], name) == getattr(found[1], name), name


def test_directions_without_variance_keep_their_length() -> None:
    _, classifier, x, _y = pair(0)

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier.encoder

        def forward(self, x: Tensor) -> Tensor:
            z = self.inner(x)
            return torch.cat([z, 3 + 0 * z[:, :1], z[:, :1] - z[:, 1:2]], dim=1)

    head = nn.Linear(WIDTH + 2, CLASSES).double()
    padded = Classifier(Padded(), head, classes=CLASSES, shape=SHAPE)
    white = in_own_spread(padded, x)
    u, logits = features_and_logits(white, x, ON_CPU)
    variances = np.linalg.eigvalsh(np.cov(u.numpy().T, bias=True))
    np.testing.assert_allclose(variances, [0, 0, *[1] * WIDTH], atol=1e-6)
    away = 0.5 + 3 * torch.randn_like(x)
    torch.testing.assert_close(white(away), padded(away), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits, padded(x), rtol=1e-7, atol=1e-7)


def test_too_few_images_are_refused_and_features_without_spread_stay() -> None:
    with pytest.raises(UserError, match="more images than features: 5 images, 5"):
        whitening(torch.rand(5, 5))
    same = whitening(torch.ones(9, 3))
    assert same.forward.equal(torch.eye(3).double())
    assert same.back.equal(same.forward)
