"""What measurements may cost: by the record alone, whatever machine made it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.battery import build
from robrep_eval.attacks.prepared import prepare
from zoo.affordable import BOUND, HEALTH, LEAST, STANDING, affordable
from zoo.classifier import Classifier
from zoo.collection.entries import read_entry
from zoo.collection.store import opened
from zoo.records import AttackRun, Result
from zoo.threat import ThreatModel


@pytest.fixture(scope="module")
def result() -> Result:
    source = opened(None)
    row = next(r for r in source.index.encoders if r.card.name == "tarrl-digits")
    return read_entry(source, row, row.entries[0]).result


def with_runs(result: Result, *runs: tuple[str, int, dict[str, Any]]) -> Result:
    """Attacks that fooled none of so many images."""
    first = result.attacks[0]
    attacks: list[AttackRun] = [
        first.model_copy(
            update={
                "name": name,
                "attempted": count,
                "fooled": 0,
                "parameters": settings,
            }
        )
        for name, count, settings in runs
    ]
    return result.model_copy(update={"attacks": attacks})


def test_a_battery_that_ends_early_leaves_the_least(result: Result) -> None:
    for runs in ((), (("apgd-ce", 0, {"steps": 100}),)):
        most = affordable(with_runs(result, *runs), (3, 32, 32))
        assert most.health == LEAST[HEALTH]
        assert most.standing == LEAST[STANDING]
        assert most.bound == LEAST[BOUND]


def test_the_share_grows_with_what_stands(result: Result) -> None:
    few, many = (
        affordable(with_runs(result, ("apgd-ce", n, {"steps": 100})), (1, 28, 28))
        for n in (1_000, 10_000)
    )
    assert few.health * 9 < many.health < few.health * 11
    assert few.bound * 9 < many.bound < few.bound * 11


@pytest.mark.parametrize("name", ["quick", "fast", "standard", "apgd-ce,square"])
def test_the_estimate_is_not_above_what_a_survivor_costs(
    result: Result, name: str
) -> None:
    """Against counted passes of a classifier that nothing fools."""
    torch.manual_seed(0)
    last = torch.nn.Linear(64, 10)
    with torch.no_grad():
        last.weight.mul_(0.01)
        last.bias.copy_(torch.linspace(0, 9, 10))
    net = torch.nn.Sequential(torch.nn.Flatten(), last)
    classifier = Classifier(net, torch.nn.Identity(), classes=10, shape=(1, 8, 8))
    x, y = torch.rand(4, 1, 8, 8), torch.full((4,), 9)
    model, counted = prepare(classifier), 0
    runs = []
    for attack in build(name).attacks:
        before = model.forward_rows + model.backward_rows
        context = Context(seed=0, ids=torch.arange(4), batch_size=64)
        attack.propose(classifier, x, y, ThreatModel(norm="Linf", eps=0.01), context)
        counted += model.forward_rows + model.backward_rows - before
        runs.append((attack.name, 1000, attack.parameters))
    many = with_runs(result, *((n, 10**6, settings) for n, _, settings in runs))
    most = affordable(many, (1, 8, 8))
    cost = 700 * most.health + 1320 * most.standing + 310 * most.bound
    assert cost <= 0.2 * 10**6 * counted / 4
