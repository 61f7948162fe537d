"""Averages of weights: how they begin, and the batch norms that go with them."""

from __future__ import annotations

import copy

import pytest
import torch
from pretraining import batch, encoder, method

from pretrain import methods
from pretrain.averaging import has_statistics, measure_norms
from pretrain.batchnorm import RUNNING
from pretrain.optimizer import build_average
from pretrain.recipe import Recipe, validate
from zoo.encoder import Encoder


def _recipe(average: float) -> Recipe:
    return validate({"name": "a", "method": "simclr", "epochs": 1, "average": average})


@pytest.mark.parametrize(("decay", "steps"), [(0.9995, 30), (0.5, 30)])
def test_the_average_by_hand(decay: float, steps: int) -> None:
    """a_t = d_t a_{t-1} + (1 - d_t) w_t with d_t = min(decay, t / (t + 10))."""
    net = torch.nn.Linear(1, 1, bias=False)
    average = build_average(net, _recipe(decay))
    expected = 0.0
    for t in range(steps):
        value = float(t * t)
        with torch.no_grad():
            net.weight.fill_(value)
        average.update(net, t)
        weight = min(decay, max(0, t - 1) / (max(0, t - 1) + 10))
        expected = weight * expected + (1 - weight) * value
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def _moved(net: Encoder) -> Encoder:
    """The same with other weights, and running statistics that are nobody's."""
    other = copy.deepcopy(net)
    with torch.no_grad():
        for value in other.parameters():
            value.add_(0.1 * torch.randn_like(value))
    for module in other.modules():
        if isinstance(module, RUNNING) and module.running_mean is not None:
            module.running_mean.fill_(7.0)
    return other


@pytest.mark.parametrize("name", ["simclr", "pgd-at", "tarrl", "fare", "lore"])
def test_norms_are_those_of_the_averaged_network(name: str) -> None:
    """The first batch norm sees what only the weights before it decide."""
    net = encoder()
    averaged, made = _moved(net), method(name, net=net)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    seen: list[torch.Tensor] = []
    first = next(m for m in net.modules() if isinstance(m, RUNNING))
    hook = first.register_forward_pre_hook(
        lambda module, args: seen.append(args[0]) if module.training else None
    )
    batches = [batch(n=12, seed=k) for k in range(3)]
    measure_norms(made, averaged, batches)
    hook.remove()
    means = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen])
    found = next(m for m in averaged.modules() if isinstance(m, RUNNING))
    torch.testing.assert_close(found.running_mean, means.mean(dim=0))
    variances = torch.stack([x.var(dim=(0, 2, 3)) for x in seen])
    torch.testing.assert_close(found.running_var, variances.mean(dim=0))
    after = made.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, RUNNING))
    assert made.training


def test_every_method_can_be_measured() -> None:
    for name in sorted(methods.registry().keys() - {"lipschitz-contrast"}):
        made = method(name)
        averaged = copy.deepcopy(made.published())
        assert has_statistics(averaged)
        measure_norms(made, averaged, [batch(n=8, k=9)])
        values = [v for v in averaged.buffers() if v.is_floating_point()]
        assert all(bool(v.isfinite().all()) for v in values), name


def test_networks_without_running_statistics() -> None:
    assert not has_statistics(torch.nn.Sequential(torch.nn.LayerNorm(3)))
    norm = torch.nn.BatchNorm1d(3, track_running_stats=False)
    assert not has_statistics(torch.nn.Sequential(norm))
