"""Planted defences are named, honest models are not; the quick ones of each, and all.

The whole list is `python -m benchmarks.planted`; docs/concepts/health.md has its table.
"""

from __future__ import annotations

from functools import cache

import pytest

from benchmarks.planted.__main__ import row
from benchmarks.planted.defences import HELD_OUT, TUNED, Planted, behind
from benchmarks.planted.models import honest, plain
from zoo.classifier import Classifier
from zoo.judgement import Judgement

QUICK = {
    "decoy added to the largest logit": "decision_probe",
    "remembers what it was asked": "stateless",
    "answers that wear off": "stateless",
    "gradient with its sign turned": "gradient_agrees",
}
"""Defences in the default run, and the check that has to name each."""


@cache
def undefended() -> Classifier:
    return plain()


def named(name: str) -> Planted:
    return next(one for one in TUNED + HELD_OUT if one.name == name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "check"), QUICK.items())
def test_a_planted_defence_is_named(name: str, check: str) -> None:
    found = row(behind(named(name), undefended()), images=24, battery="apgd-ce")
    assert found.judgement is Judgement.BROKEN
    assert check in found.named


def test_the_network_behind_them_is_sound() -> None:
    assert row(undefended(), images=24, battery="fast").named == ""


@pytest.mark.long
@pytest.mark.parametrize("planted", TUNED + HELD_OUT, ids=lambda one: one.name)
def test_every_planted_defence_is_broken(planted: Planted) -> None:
    found = row(behind(planted, undefended()), images=40, battery="fast")
    assert found.judgement is Judgement.BROKEN


@pytest.mark.long
def test_twenty_honest_models_are_sound() -> None:
    marked = {
        name: found.named
        for name, classifier in honest()
        if (found := row(classifier, images=40, battery="fast")).named
    }
    assert marked == {}
