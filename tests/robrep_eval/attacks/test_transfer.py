"""Transfer against the closed form: a linear source has one worst corner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.battery import build
from robrep_eval.attacks.transfer import TransferAttack
from robrep_eval.run.surrogates import references, with_surrogates
from zoo.classifier import Classifier
from zoo.encoder import Encoder, EncoderSpec, fingerprint
from zoo.errors import UserError
from zoo.threat import ThreatModel

THREAT = ThreatModel(norm="Linf", eps=0.1)


def linear(seed: int) -> Classifier:
    """Two classes on 1x3x3 images, no encoder to speak of."""
    head = nn.Linear(9, 2)
    with torch.no_grad():
        rng = torch.Generator().manual_seed(seed)
        head.weight.copy_(torch.randn(2, 9, generator=rng))
        head.bias.zero_()
    return Classifier(nn.Flatten(), head, classes=2, shape=(1, 3, 3))


def worst_corner(source: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """x + eps sign(w_other - w_y), cut off at the box."""
    assert source.linear is not None
    w = source.linear.weight
    direction = (w[1 - y] - w[y]).sign().view_as(x)
    return (x + THREAT.eps * direction).clamp(0, 1)


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    x = torch.rand(40, 1, 3, 3, generator=rng)
    return x, torch.randint(0, 2, (40,), generator=rng)


def test_adversarials_are_the_sources_and_the_target_is_never_asked(
    images: tuple[Tensor, Tensor],
) -> None:
    x, y = images
    source = linear(0)

    class Target(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("the attacked classifier was asked")

    attack = TransferAttack(surrogate=source, reference="zoo:source")
    target = Classifier(Target(), nn.Identity(), classes=2, shape=(1, 3, 3))
    context = Context(seed=0, ids=torch.arange(40), batch_size=16)
    found = attack.propose(target, x, y, THREAT, context)
    torch.testing.assert_close(found, worst_corner(source, x, y), atol=1e-6, rtol=0)
    assert float((found - x).abs().max()) <= THREAT.eps + 1e-6


def test_a_named_source_is_fitted_once_and_read_afterwards(tmp_path: Path) -> None:
    battery = build("fgsm,transfer:zoo:simclr-digits")
    assert references(battery) == ["zoo:simclr-digits"]
    with pytest.raises(ValueError, match="not been fitted"):
        _ = battery.attacks[1].parameters
    encoder = Encoder(
        EncoderSpec(
            arch="resnet_s8", options={"widths": [4], "blocks": [1]}, shape=(1, 8, 8)
        )
    )
    head = nn.Linear(encoder.dim, 10)
    source = Classifier(encoder, head, classes=10, shape=(1, 8, 8))
    fitted = []

    def fit(reference: str) -> Classifier:
        fitted.append(reference)
        return source

    path = tmp_path / "source.safetensors"
    first, second = (with_surrogates(battery, lambda _: path, fit) for _ in range(2))
    assert fitted == ["zoo:simclr-digits"]
    assert references(first) == []
    for made in (first, second):
        shown = made.attacks[1].parameters
        assert shown["source_sha256"] == fingerprint(source)
        assert shown["source"] == "zoo:simclr-digits"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("transfer:zoo:simcrl-digits", "did you mean 'simclr-digits'"),
        ("transfer:simclr-digits", "or transfer:zoo:NAME"),
        ("transfer:zoo:", "or transfer:zoo:NAME"),
        ("transfer", "unknown attack 'transfer'"),
        ("transfer:zoo:simclr-digits,transfer:zoo:simclr-digits", "named twice"),
    ],
)
def test_bad_sources_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(name)
