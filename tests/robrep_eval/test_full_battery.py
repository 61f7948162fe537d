"""The full battery: every attack on every image, and the worst case over all."""

from __future__ import annotations

from pathlib import Path

import pytest

from robrep_eval import evaluate
from robrep_eval.attacks.battery import FULL, build
from zoo.classifier import Classifier
from zoo.records import Outcome, Result, Verdict
from zoo.verification import verify_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full") / "run"


@pytest.fixture(scope="module")
def result(robust_classifier: Classifier, folder: Path) -> Result:
    return evaluate(
        robust_classifier,
        dataset="digits",
        eps=0.1,
        attacks="full",
        limit=8,
        measure=(),
        output=folder,
    )


def test_every_attack_sees_every_correct_image(result: Result) -> None:
    names = [run.name for run in result.attacks]
    assert names[:4] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert names[4:] == [*FULL[1:]]
    assert result.clean.k > 0
    for run in result.attacks:
        assert not run.sequence
        assert run.attempted == result.clean.k
        assert run.refused == 0


def test_the_worst_case_is_that_of_each_image(result: Result) -> None:
    columns = result.examples.outcomes
    for row, verdict in enumerate(result.examples.verdict):
        fooled = any(column[row] is Outcome.FOOLED for column in columns.values())
        if result.examples.clean_prediction[row] == result.examples.label[row]:
            assert verdict is (Verdict.FOOLED if fooled else Verdict.ROBUST)
        else:
            assert verdict is Verdict.MISCLASSIFIED
    for run in result.attacks:
        assert result.robust.k <= run.robust.k
        own = sum(o is Outcome.FOOLED for o in columns[run.name])
        assert run.robust.k == result.clean.k - own


def test_the_folder_verifies_and_says_what_was_left_out(
    result: Result, folder: Path
) -> None:
    assert verify_folder(folder)
    assert any("Common corruptions were left out" in note for note in result.notes)


def test_standard_keeps_its_sequence_beside_others() -> None:
    attacks = build("standard,displacement").attacks
    assert [attack.sequence for attack in attacks] == [True] * 4 + [False]
    assert all(not attack.sequence for attack in build("full").attacks)
    reference = build("full", "reference").attacks
    assert [attack.engine.split()[0] for attack in reference[:4]] == [
        "pyautoattack"
    ] * 4
    assert not any(attack.sequence for attack in reference)
