"""Threat models: what is read, what is refused, and with which words."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import UserError
from zoo.threat import Norm, ThreatModel, parse_eps, parse_norm


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.1", 0.1), (0.5, 0.5), ("1e-2", 0.01)]
)
def test_eps_is_read_as_number_or_fraction(text: object, value: float) -> None:
    assert parse_eps(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "text", ["0", "-1", "nan", "inf", "8/0", "1/2/3", "eight", "", None, "-8/255"]
)
def test_bad_eps_is_refused_with_its_value(text: object) -> None:
    with pytest.raises(UserError, match="eps must be") as caught:
        parse_eps(text)
    assert str(text) in str(caught.value)


def test_norm_is_read_in_any_case_and_the_nearest_is_named() -> None:
    assert parse_norm("linf") == "Linf"
    with pytest.raises(UserError, match="did you mean 'Linf'"):
        parse_norm("Linv")


@pytest.mark.parametrize(
    ("norm", "eps", "shape"),
    [("Linf", 8.0, (3, 32, 32)), ("L2", 128.0, (3, 32, 32)), ("L1", 64.0, (1, 8, 8))],
)
def test_eps_in_255_units_is_recognised(
    norm: str, eps: float, shape: tuple[int, ...]
) -> None:
    with pytest.raises(UserError, match=f"did you mean {eps:g}/255"):
        ThreatModel.model_validate({"norm": norm, "eps": eps}).check_units(shape)


@given(st.integers(1, 254))
def test_text_form_names_the_radius_exactly(k: int) -> None:
    shown = str(ThreatModel(norm="Linf", eps=k / 255))
    assert parse_eps(shown.split()[1]) == pytest.approx(k / 255, rel=1e-5)


def test_tolerance_is_far_below_any_radius_in_use() -> None:
    for norm, eps in (("Linf", 1 / 255), ("L2", 0.25), ("L1", 5.0)):
        threat = ThreatModel.model_validate({"norm": norm, "eps": eps})
        assert threat.tolerance((3, 224, 224)) < 0.004 * eps
    assert math.isclose(
        ThreatModel(norm="Linf", eps=0.1).tolerance((1, 8, 8)), 2**-23 + 1e-7
    )


@pytest.mark.parametrize(
    ("norm", "eps", "shown"),
    [
        ("Linf", 8 / 255, "Linf 8/255"),
        ("Linf", 0.1, "Linf 0.1"),
        ("Linf", (8 + 1.5e-6) / 255, "Linf 0.0313726"),
        ("Linf", 1e-9, "Linf 1e-09"),
        ("L2", 8 / 255, "L2 0.0313725"),
    ],
)
def test_text_form_is_a_fraction_only_where_it_is_one(
    norm: Norm, eps: float, shown: str
) -> None:
    assert str(ThreatModel(norm=norm, eps=eps)) == shown


@pytest.mark.parametrize(("norm", "diameter"), [("Linf", 1), ("L2", 4), ("L1", 16)])
def test_the_diameter_of_the_box_is_the_largest_radius(
    norm: Norm, diameter: float
) -> None:
    """Of 16 pixels; the tolerance is that of one unit in the last place in each."""
    shape = (1, 4, 4)
    ThreatModel(norm=norm, eps=0.999 * diameter).check_units(shape)
    with pytest.raises(UserError, match="reaches any image"):
        ThreatModel(norm=norm, eps=diameter).check_units(shape)
    found = ThreatModel(norm=norm, eps=0.5).tolerance(shape)
    assert found == pytest.approx(diameter * 2**-23 + 0.5e-6, rel=1e-12)
