"""`evaluate` takes its options by the names that the command gives them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from robrep_eval import evaluate
from robrep_eval.commands.cli import run
from robrep_eval.measures.health.measurement import HealthChecks
from robrep_eval.probes.linear import ProbeSettings
from robrep_eval.run.chunk import BatterySettings
from robrep_eval.run.options import Options, request_options
from robrep_eval.run.request import Request
from zoo.errors import UserError


def test_every_option_of_the_command_is_a_keyword() -> None:
    """Read from click's own list, without what is about files, printing, lists of
    evaluations, and estimates of one."""
    command = {str(one.name) for one in run.params}
    command -= {"as_json", "quiet", "config", "summaries", "suite", "estimated"}
    keywords = set(Options.__annotations__) | set(
        inspect.signature(evaluate).parameters
    )
    assert command <= keywords


def test_defaults_are_those_of_a_request() -> None:
    assert Request(model="zoo:x", **request_options({})) == Request(model="zoo:x")


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"seed": 3}, "settings", BatterySettings(seed=3)),
        (
            {"settings": BatterySettings(seed=3), "batch_size": 7},
            "settings",
            BatterySettings(seed=3, batch_size=7),
        ),
        ({"device": "cuda:1"}, "settings", BatterySettings(device="cuda:1")),
        ({"probe": "alf"}, "probe", ProbeSettings(protocol="ALF")),
        (
            {"labels": 50, "l2": 0.1},
            "probe",
            ProbeSettings(labels="50", penalties=(0.1,)),
        ),
        ({"probe": ProbeSettings(seed=2)}, "probe", ProbeSettings(seed=2)),
        ({"attacks": ["apgd-ce"]}, "attacks", "apgd-ce"),
        ({"attacks": "pgd, fgsm"}, "attacks", "pgd,fgsm"),
        ({"transfer_from": "zoo:a"}, "attacks", "standard,transfer:zoo:a"),
        ({"output": "some/dir"}, "output", Path("some/dir")),
        ({"output": "auto"}, "output", "auto"),
        ({"normalize": ".5/.25"}, "std", (0.25,)),
        ({"mean": 0.5}, "mean", (0.5,)),
        ({"arch_options": {"width": 2}}, "arch_options", (("width", 2),)),
    ],
)
def test_values_as_people_write_them(
    given: dict[str, Any], field: str, value: object
) -> None:
    assert request_options(given)[field] == value


def test_health_none_measures_no_health() -> None:
    found = request_options({"health": "none"})["measure"]
    assert not any(isinstance(one, HealthChecks) for one in found)
    assert any(isinstance(one, HealthChecks) for one in request_options({})["measure"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"epz": 0.1}, "no option 'epz'; did you mean 'eps'"),
        ({"batchsize": 2}, "'batch_size'"),
        ({"probe": "alff"}, "did you mean 'ALF'"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"seed": 0.5}, "seed must be"),
        ({"measure": (), "health": "none"}, "not both"),
        ({"normalize": "imagenet", "mean": 0.1}, "not both"),
        ({"mean": "imagenet"}, "numbers"),
    ],
)
def test_bad_options_are_told(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        evaluate("zoo:tarrl-digits", **given)
