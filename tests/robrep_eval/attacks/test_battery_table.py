"""The table of batteries on the ground says what the attacks really are."""

from __future__ import annotations

from itertools import product

import pytest

from robrep_eval.attacks.battery import ENGINES, RANDOMNESS, build
from robrep_eval.attacks.prepared import _COPIES
from robrep_eval.attacks.problem import ITSELF
from robrep_eval.attacks.registry import registry
from zoo import batteries
from zoo.errors import UserError
from zoo.threat import NORMS

WORDS = [name for name in registry() if ":" not in name]
CODES = {"robrep", "pyautoattack", "art"}


def test_the_words_are_all_that_can_be_written() -> None:
    assert {"standard", "plus", "rand", "quick", "fast", "full", "none", "fgsm"} <= set(
        WORDS
    )
    assert len(WORDS) >= 20


@pytest.mark.parametrize("word", WORDS)
def test_each_battery_is_what_the_table_says(word: str) -> None:
    for engine, norm, randomness in product(ENGINES, NORMS, RANDOMNESS):
        try:
            battery = build(word, engine, norm=norm, randomness=randomness)
        except UserError:
            assert word in batteries.OWN
            assert engine == "reference"
            assert batteries.members(word, engine, norm) is None
            continue
        found = batteries.members(word, battery.engine, norm)
        assert found is not None
        stated = [(a.name, a.sequence, a.parameters) for a in battery.attacks]
        assert [(m.name, m.sequence, m.parameters) for m in found] == stated
        codes = [attack.engine.split()[0] for attack in battery.attacks]
        assert [m.code for m in found] == codes
        assert set(codes) <= CODES


def test_words_of_others_mean_nothing_here() -> None:
    for word in ("transfer:zoo:x", "toy-corner", "Standard", " standard", "sta"):
        assert batteries.members(word, "robrep", "Linf") is None
    assert batteries.members("standard", "some engine", "Linf") is None


def test_the_networks_are_those_of_the_engine() -> None:
    assert set(batteries.NETWORKS) == {*_COPIES, ITSELF}
