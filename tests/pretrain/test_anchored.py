"""Objectives that hold features near an encoder's clean ones, against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pretraining import THREAT, Plain, batch, method
from torch import Tensor, nn

from pretrain import methods
from pretrain.methods.anchored import Anchored
from pretrain.methods.base import Batch, Materials, Method
from pretrain.methods.displacement import Displacement
from pretrain.methods.lore import LORE
from pretrain.optimizer import build_optimizer, build_schedule
from pretrain.recipe import (
    AttackSettings,
    AugmentSettings,
    OptimizerSettings,
    ProjectorSettings,
)
from zoo.encoder import Encoder, EncoderSpec

OBJECTIVES = ("fare", "cosine", "lore", "displacement")


def _rows(made: Method, x: Tensor) -> tuple[list[list[float]], list[list[float]]]:
    """Features of the student and of its teacher, as lists; batch norms frozen."""
    assert made.teacher is not None
    with torch.no_grad():
        return made.encoder(x).tolist(), made.teacher(x).tolist()


def _frozen(name: str, **options: object) -> Anchored:
    made = method(name, options=options)
    made.frozen_norms = True
    made.train()
    assert isinstance(made, Anchored)
    return made


def _squared(a: list[float], b: list[float]) -> float:
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def _cosine(a: list[float], b: list[float]) -> float:
    products = sum(p * q for p, q in zip(a, b, strict=True))
    return 1 - products / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))


@pytest.mark.parametrize(("name", "by_hand"), [("fare", _squared), ("cosine", _cosine)])
def test_attacked_features_are_compared_with_clean_ones_of_the_original(
    name: str, by_hand: Callable[[list[float], list[float]], float]
) -> None:
    made = _frozen(name)
    some = batch()
    _, x_adv, anchor = made.attacked(some)
    moved, _ = _rows(made, x_adv)
    expected = [by_hand(z, a) for z, a in zip(moved, anchor.tolist(), strict=True)]
    loss = made(batch())["adversarial"]
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_attack_raises_the_distance_inside_the_ball(name: str) -> None:
    made = _frozen(name)
    x, x_adv, anchor = made.attacked(batch(n=12))
    assert float((x_adv - x).abs().max()) <= THREAT.tolerance(x.shape[1:]) + THREAT.eps
    noise = torch.empty_like(x).uniform_(-THREAT.eps, THREAT.eps)
    with torch.no_grad():
        found = made.distance(made.follow(x_adv), anchor).mean()
        random = made.distance(made.follow((x + noise).clamp(0, 1)), anchor).mean()
    assert float(found) > float(random)


def test_displacement_counts_in_the_spread_of_the_original_features() -> None:
    made = _frozen("displacement", weight=3.0)
    assert isinstance(made, Displacement)
    z = torch.randn(50, 8) * torch.arange(1.0, 9.0) + 5
    made.prepare(z, 0)
    deviation = z.std(dim=0, unbiased=False)
    a, b = torch.randn(2, 4, 8)
    by_hand = (((a - b) / deviation) ** 2).mean(dim=1)
    # A negligible share of the largest variance is added to each.
    torch.testing.assert_close(made.distance(a, b), by_hand, rtol=1e-2, atol=0)


class TestLore:
    """The constraint, its multiplier, and who moves when."""

    def test_parts_are_the_lagrangian(self) -> None:
        made = _frozen("lore", rho=0.02)
        assert isinstance(made, LORE)
        x, x_adv, anchor = made.attacked(batch())
        clean, original = _rows(made, x)
        moved, _ = _rows(made, x_adv)
        price = made.price(anchor).tolist()
        assert min(price) > 0
        excess = [
            _squared(z, a) - 0.02 * _squared(a, [0.0] * len(a))
            for z, a in zip(clean, original, strict=True)
        ]
        parts = {k: v.item() for k, v in made(batch()).items()}
        n = len(price)
        pairs = list(zip(moved, original, strict=True))
        held = sum(p * e for p, e in zip(price, excess, strict=True)) / n
        assert parts["adversarial"] == pytest.approx(
            sum(_squared(z, a) for z, a in pairs) / n, rel=1e-3
        )
        assert parts["constraint"] == pytest.approx(held, rel=1e-3)
        assert parts["multiplier"] == pytest.approx(-held, rel=1e-3)

    def test_each_player_climbs_its_own_way(self) -> None:
        """The multiplier's gradient is minus that of lambda c; the encoder's plus."""
        made = _frozen("lore", rho=1e-6)  # every image is beyond it
        parts = made(batch())
        torch.stack(list(parts.values())).sum().backward()
        assert isinstance(made, LORE)
        bias = list(made.multiplier.parameters())[-1].grad
        assert bias is not None
        assert bias.item() < 0  # a step down the gradient raises the price

    def test_the_multiplier_moves_in_one_step_of_five(self) -> None:
        made = _frozen("lore")
        assert isinstance(made, LORE)
        settings = OptimizerSettings(name="adamw", lr=1e-3)
        optimizer = build_optimizer(made, settings, made.rates())
        rates = {group["lr"] for group in optimizer.param_groups}
        assert rates == {1e-3, made.options.multiplier_lr}
        moved, weight = [], next(iter(made.multiplier.parameters()))
        for done in range(10):
            before = weight.detach().clone()
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(made(batch(seed=done)).values())).sum().backward()
            made.before_step(done)
            optimizer.step()
            moved.append(not torch.equal(before, weight))
        assert moved == [False, False, False, False, True] * 2

    @pytest.mark.parametrize("length", [1, 30])
    def test_the_price_moves_as_slowly_for_many_long_features(
        self, length: float
    ) -> None:
        """By the published rate; of raw features one step moved it by tens."""
        made = _from_itself("lore", {}, Wide)
        assert isinstance(made, LORE)
        anchor = length * F.normalize(torch.rand(64, 1280), dim=1)
        torch.testing.assert_close(made.price(anchor), made.price(7 * anchor))
        optimizer = torch.optim.AdamW(made.multiplier.parameters(), lr=5e-4)
        before = made.price(anchor).mean().item()
        for _ in range(20):
            optimizer.zero_grad()
            (-made.price(anchor).mean()).backward()
            optimizer.step()
        assert 0.01 < made.price(anchor).mean().item() - before < 4

    def test_the_constraint_holds_at_the_end_and_fare_breaks_it(self) -> None:
        rho = 0.03
        fare = _drift("fare", {}, steps=100)
        lore = _drift("lore", {"rho": rho, "multiplier_lr": 2e-3}, steps=400)
        assert 0.4 * rho <= lore <= 1.1 * rho  # it is used, and it holds
        assert fare > 1.5 * rho


def _from_itself(
    name: str, options: dict[str, object], network: type[Plain] = Plain
) -> Method:
    """A method whose student starts as its teacher, without batch statistics."""
    kind = methods.get(name)
    return kind(
        Materials(
            encoder=network(),  # type: ignore[arg-type]
            options=kind.Options.model_validate(options),
            threat=THREAT,
            attack=AttackSettings(steps=2),
            projector=ProjectorSettings(),
            augment=AugmentSettings(),
            classes=2,
            teacher=network(),  # type: ignore[arg-type]
        )
    )


class Wide(Plain):
    """As wide as EfficientNet-Lite0."""

    dim = 1280


def _drift(name: str, options: dict[str, object], steps: int) -> float:
    """Of clean views after training, as a share of the squared lengths."""
    made = _from_itself(name, options).train()
    settings = OptimizerSettings(name="adamw", lr=3e-3, weight_decay=0)
    optimizer = build_optimizer(made, settings, made.rates())
    schedule = build_schedule(optimizer, settings, steps)
    for done in range(steps):
        schedule.step_update(done + 1)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(made(_views(done)).values())).sum().backward()
        made.before_step(done)
        optimizer.step()
    assert made.teacher is not None
    x = torch.cat([made.weak_view(_views(1000 + k)) for k in range(8)])
    with torch.no_grad():
        z, anchor = made.encoder(x), made.teacher(x)
    return float((z - anchor).square().sum() / anchor.square().sum())


def _views(seed: int) -> Batch:
    """The same images with other draws."""
    generator = torch.Generator().manual_seed(seed)
    return Batch(x=batch(n=16).x, y=torch.empty(16, 0), generator=generator)


@pytest.mark.parametrize("name", [*OBJECTIVES, "deacl", "tarrl"])
def test_a_student_of_another_width_follows_through_a_linear_layer(name: str) -> None:
    wide = EncoderSpec(
        arch="resnet_s8",
        options={"widths": [8, 12], "blocks": [1, 1], "stem_stride": 2},
        shape=(1, 8, 8),
    )
    options = {"reference": "teacher"} if name == "tarrl" else {}
    made = method(name, net=Encoder(wide), options=options)
    assert isinstance(made.match, nn.Linear)
    assert made.match.weight.shape == (8, 12)
    torch.stack(list(made(batch()).values())).sum().backward()
    assert made.match.weight.grad is not None
    assert made.export().dim == 12


def test_frozen_batch_norms_keep_their_statistics() -> None:
    made = _frozen("fare")
    before = {k: v.clone() for k, v in made.encoder.named_buffers()}
    made(batch())
    after = dict(made.encoder.named_buffers())
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not torch.equal(
        _running(method("fare").train()), _running(_passed(method("fare").train()))
    )


def _passed(made: Method) -> Method:
    made(batch())
    return made


def _running(made: Method) -> Tensor:
    return next(v for k, v in made.encoder.named_buffers() if "running_mean" in k)
