"""Settings compared key by key, to the last bit."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.settings import ABSENT, LAYOUT, differing, dump


@dataclass(frozen=True)
class Inner:
    rates: tuple[float, ...] = (0.1, 0.2)


@dataclass(frozen=True)
class Outer:
    seed: int = 0
    device: str = "cpu"
    inner: Inner = field(default_factory=Inner)


def test_differing_names_dotted_keys_and_both_values() -> None:
    old = {"a": {"b": 1, "c": 2}, "d": (1, 2), "f": {"device": "cpu"}}
    new = {"a": {"b": 1, "c": 3}, "d": [1, 2], "e": 1, "f": {"device": "cuda"}}
    assert differing(old, new, without=LAYOUT) == {"a.c": (2, 3), "e": (ABSENT, 1)}
    assert list(differing(old, new)) == ["a.c", "e", "f.device"]


def test_a_dump_is_json_without_layout() -> None:
    assert dump(Outer()) == {"seed": 0, "inner": {"rates": [0.1, 0.2]}}


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_neighbouring_floats_stay_apart_through_json(value: float) -> None:
    def stored(rate: float) -> dict[str, object]:
        found: dict[str, object] = json.loads(json.dumps(dump(Inner((rate,)))))
        return found

    assert differing(stored(value), dump(Inner((value,)))) == {}
    above = math.nextafter(value, math.inf)
    assert list(differing(stored(value), dump(Inner((above,))))) == ["rates"]


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump(Inner((math.nan,)))
