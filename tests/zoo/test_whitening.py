"""Whitened measures against numpy, and against themselves under invertible maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robrep_eval.attacks.displacement import FeatureAttackSettings, displace
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

    def __init__(self, encoder: nn.Module, a: Tensor, c: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("a", a)
        self.register_buffer("c", c)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x) @ self.a.T + self.c  # type: ignore[operator]


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


def test_features_that_do_not_vary_are_left_out() -> None:
    _, classifier, x, _ = pair(0)

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
    assert u.shape == (len(x), WIDTH)
    torch.testing.assert_close(logits, padded(x), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (torch.rand(5, 5), "more images than features: 5 images, 5 features"),
        (torch.ones(9, 3), "the same for all images"),
    ],
)
def test_what_has_no_spread_is_refused(z: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        whitening(z)
