"""What a run is said to cost follows from the work that it does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from robrep_eval.attacks.battery import build
from robrep_eval.attacks.registry import known
from robrep_eval.run.estimate import Estimate, estimate, most_steps
from robrep_eval.run.plan import prepare
from robrep_eval.run.request import Request
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder


def _steps(battery: str) -> dict[str, int | None]:
    found = build(battery, "robrep", norm="Linf", randomness="per-example").attacks
    return {attack.name: most_steps(attack) for attack in found}


def test_passes_of_standard_are_those_of_the_paper() -> None:
    """Croce and Hein 2020: 100 iterations each, nine targets, 5,000 queries."""
    assert _steps("standard") == {
        "apgd-ce": 100,
        "apgd-t": 900,
        "fab-t": 900,
        "square": 5000,
    }
    assert sum(n or 0 for n in _steps("quick").values()) == 460
    rounds = 20 + 20 + 50 + 25 + 120 + 450 + 400 + 540
    assert _steps("fast")["fast-rounds"] == rounds


@pytest.mark.parametrize("name", [*known(), "transfer:zoo:simclr-digits"])
def test_every_attack_is_counted_or_said_not_to_be(name: str) -> None:
    for count in _steps(name).values():
        assert count is None or count > 0


@pytest.fixture
def request_(
    plain_classifier: Classifier, digits_train: Dataset, digits_test: Dataset
) -> Request:
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    return Request(
        model=encoder,
        dataset=digits_test,
        train=digits_train,
        eps=0.1,
        attacks="standard",
        limit=50,
    )


def test_an_estimate_adds_up_and_writes_nothing(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = prepare(request_)
    found = estimate(plan)
    assert (found.images, found.gradients, found.queries) == (50, 1900, 5000)
    assert request_.train is not None
    assert found.training == len(request_.train)
    assert 0 < found.forward < found.gradient
    each = 1900 * found.gradient + 5000 * found.forward + found.read
    assert found.attacks == pytest.approx(50 * each)
    assert found.seconds == found.features + found.fit + found.attacks
    dim = plan.loaded.encoder.dim if plan.loaded.encoder else 0
    assert found.disk == 4 * dim * (found.training + 50) + 4 * 64 * 50
    assert not list(tmp_path.iterdir())


def test_lines_tell_hours_and_what_is_not_counted() -> None:
    one = Estimate(
        images=50_000,
        training=1_281_167,
        gradients=1900,
        queries=5000,
        uncounted=(),
        read=0.001,
        forward=0.001,
        gradient=0.003,
        features=7200.0,
        fit=90.0,
        memory=3 << 30,
        disk=1 << 40,
    )
    text = "\n".join(one.lines())
    assert "features 2 h, probe 1.5 min, attacks at most 149 h" in text
    assert "151 h on 1, 75.3 h on 2, 37.7 h on 4" in text
    assert "memory about 3 GiB beside the network, disk at most 1,024 GiB" in text
    assert "not counted: art-hsj" in "\n".join(
        replace(one, uncounted=("art-hsj",)).lines()
    )
