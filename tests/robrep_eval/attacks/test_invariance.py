"""By default an outcome belongs to its example: not to batch, order, split or resume.

Properties over the attacks of every family, shortened; the classifier is half robust,
so that each attack leaves some examples standing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robrep_eval.attacks.apgd import ApgdAttack
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.fab import FabAttack
from robrep_eval.attacks.pool import Journal, State
from robrep_eval.attacks.rounds import Round, RoundsAttack
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.attacks.targets import Targets
from zoo.classifier import Classifier
from zoo.threat import ThreatModel

N = 16
ROUNDS = RoundsAttack(
    name="rounds",
    rounds=(
        Round(
            attack=ApgdAttack(
                name="first", loss="probability-margin", steps=4, start="clean"
            )
        ),
        Round(
            attack=ApgdAttack(name="second", loss="ce", steps=6, start="diversified"),
            near=0.9,
        ),
        Round(
            attack=ApgdAttack(
                name="third",
                loss="dlr-targeted",
                steps=8,
                targets=Targets(count=3, ranking="met"),
            ),
            near=0.6,
        ),
        Round(
            attack=FabAttack(
                name="last", steps=6, targets=Targets(count=2, ranking="met")
            ),
            near=0.3,
        ),
    ),
)
ATTACKS: dict[str, EngineAttack | RoundsAttack] = {
    "rounds": ROUNDS,
    "apgd-ce": ApgdAttack(name="apgd-ce", loss="ce", steps=12, restarts=2),
    "apgd-t": ApgdAttack(
        name="apgd-t",
        loss="dlr-targeted",
        steps=12,
        targets=Targets(count=2, ranking="malt"),
    ),
    "near": ApgdAttack(
        name="near",
        loss="dlr-targeted",
        steps=8,
        targets=Targets(count=3, near=0.5),
    ),
    "stripes": ApgdAttack(
        name="stripes",
        loss="probability-margin",
        steps=6,
        restarts=2,
        start="stripes",
    ),
    "fab-t": FabAttack(name="fab-t", steps=8, targets=Targets(count=2)),
    "fab": FabAttack(name="fab", steps=4, restarts=2),
    "square": SquareAttack(name="square", steps=80),
}
CASES = [
    *((name, ThreatModel(norm="Linf", eps=0.12)) for name in ATTACKS),
    ("apgd-ce", ThreatModel(norm="L2", eps=0.9)),
    ("apgd-ce", ThreatModel(norm="L1", eps=3.0)),
    ("stripes", ThreatModel(norm="L2", eps=0.9)),
    ("rounds", ThreatModel(norm="L2", eps=0.9)),
    ("square", ThreatModel(norm="L2", eps=1.5)),
]
case = pytest.mark.parametrize(("name", "threat"), CASES, ids=lambda c: str(c))
IDS = torch.arange(1000, 1000 + N)


class Setting:
    """A classifier with examples, and what an attack finds on all of them at once."""

    def __init__(self, classifier: Classifier, x: Tensor, y: Tensor) -> None:
        self.classifier, self.x, self.y = classifier, x, y
        self.whole = cache(self._whole)

    def fooled(
        self,
        attack: EngineAttack | RoundsAttack,
        threat: ThreatModel,
        rows: Tensor,
        batch_size: int = 64,
        journal: Journal | None = None,
    ) -> Tensor:
        """Bool (len(rows),)."""
        x, y = self.x[rows], self.y[rows]
        context = Context(
            seed=3, ids=IDS[rows], batch_size=batch_size, journal=journal or Journal()
        )
        images = attack.propose(self.classifier, x, y, threat, context)
        with torch.no_grad():
            return torch.ne(self.classifier(images).argmax(dim=1), y)

    def _whole(self, name: str, threat: ThreatModel) -> Tensor:
        return self.fooled(ATTACKS[name], threat, torch.arange(N))


@pytest.fixture(scope="module")
def setting(make: Any) -> Setting:
    classifier = make.classifier(0.5)
    return Setting(classifier, *make.correct(classifier, N))


@case
@settings(max_examples=4)
@given(order=st.permutations(range(N)), batch=st.integers(1, N))
def test_order_and_batch_size(
    setting: Setting, name: str, threat: ThreatModel, order: list[int], batch: int
) -> None:
    rows = torch.tensor(order)
    got = setting.fooled(ATTACKS[name], threat, rows, batch)
    assert got.tolist() == setting.whole(name, threat)[rows].tolist()


@case
@settings(max_examples=3)
@given(cut=st.integers(1, N - 1))
def test_splitting(setting: Setting, name: str, threat: ThreatModel, cut: int) -> None:
    parts = [torch.arange(cut), torch.arange(cut, N)]
    got = torch.cat([setting.fooled(ATTACKS[name], threat, rows) for rows in parts])
    assert got.tolist() == setting.whole(name, threat).tolist()


class KilledError(Exception):
    """Stands for the end of the process."""


@case
@settings(max_examples=3)
@given(stop=st.integers(1, 40))
def test_stopping_anywhere_and_going_on(
    setting: Setting, name: str, threat: ThreatModel, stop: int
) -> None:
    saved: list[State] = []

    def save(state: State) -> None:
        saved.append({key: value.clone() for key, value in state.items()})
        if len(saved) == stop:
            raise KilledError

    rows = torch.arange(N)
    try:
        journal = Journal(save=save, seconds=0)
        got = setting.fooled(ATTACKS[name], threat, rows, 8, journal)
    except KilledError:
        journal = Journal(load=lambda: saved[-1])
        got = setting.fooled(ATTACKS[name], threat, rows, 8, journal)
    assert got.tolist() == setting.whole(name, threat).tolist()


def test_the_cases_have_both_outcomes(setting: Setting) -> None:
    outcomes = [setting.whole(name, threat) for name, threat in CASES]
    assert any(0 < int(o.sum()) < N for o in outcomes)
    assert sum(int(o.sum()) for o in outcomes) > 0
