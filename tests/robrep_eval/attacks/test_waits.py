"""How often a step asks a tensor what it holds: a GPU is waited for each time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.autoattack.waits import Counting, per_step
from robrep_eval.attacks import hyperplane
from robrep_eval.attacks.battery import build
from robrep_eval.attacks.pool import told
from zoo.threat import ThreatModel

MOST = {"apgd-ce": 2, "apgd-t": 2, "fab-t": 3.5, "square": 4.5}
"""Waits a step, those of beginning and leaving and of draws shared out."""


def test_waits_are_counted() -> None:
    x = torch.arange(6.0)
    with Counting() as counting:
        x[x > 2] = 0  # one for the mask
        x[x.argmax()].item()  # an index of no dimension is read, then the number
        (x + 1).nonzero()
    assert counting.waits.total() == 4


def test_several_answers_at_once() -> None:
    assert told(torch.tensor(True), torch.tensor(False)) == [True, False]


@pytest.mark.parametrize("name", sorted(MOST))
def test_a_step_waits_little(
    name: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = make.classifier(1.0)
    x, y = make.correct(classifier, 8)
    attack: Any = next(a for a in build("standard").attacks if a.name == name)
    attack = replace(attack, steps=2000 if name == "square" else 100)
    monkeypatch.setattr(hyperplane, "READ_EVERY", {})  # as on a GPU
    threat = ThreatModel(norm="Linf", eps=0.01)  # none falls
    waits, operations = per_step(attack, classifier, x, y, threat)
    assert 0 < waits <= MOST[name]
    assert operations > waits
