"""The price of choosing an encoder by a label-free measure, by hand."""

from __future__ import annotations

import math

import pytest

from benchmarks.selection import LOT, Candidate, Price, prices


def candidate(name: str, mean: float, **measures: float) -> Candidate:
    return Candidate(name=name, labels=False, mean=mean, measures=measures)


def by_measure(found: list[Price]) -> dict[str, Price]:
    return {one.measure: one for one in found}


def test_the_price_is_what_the_chosen_one_lacks_beside_the_best() -> None:
    found = by_measure(
        prices(
            [
                candidate("a", 50.0, right=3.0, wrong=1.0),
                candidate("b", 47.0, right=2.0, wrong=2.0),
                candidate("c", 44.0, right=1.0, wrong=3.0),
            ]
        )
    )
    assert (found["right"].chosen, found["right"].points) == ("a", 0)
    assert found["right"].rank == pytest.approx(1)
    assert (found["wrong"].chosen, found["wrong"].points) == ("c", 6)
    assert found["wrong"].rank == pytest.approx(-1)
    assert found[LOT].points == pytest.approx(3)


def test_encoders_that_a_measure_cannot_tell_apart_are_chosen_by_lot() -> None:
    found = by_measure(
        prices(
            [
                candidate("a", 50.0, some=1.0, none=0.0),
                candidate("b", 46.0, some=1.0, none=0.0),
                candidate("c", 40.0, some=0.0, none=0.0),
            ]
        )
    )
    assert (found["some"].chosen, found["some"].points) == ("a, b", 2)
    assert found["none"].points == pytest.approx(found[LOT].points)
    assert math.isnan(found["none"].rank)
    assert found["none"].chosen == "any of 3"
