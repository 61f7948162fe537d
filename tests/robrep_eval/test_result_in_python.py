"""What a result is to somebody at a Python prompt."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from robrep_eval import evaluate
from robrep_eval.commands.display import footnotes
from robrep_eval.run.summary import SummaryRow
from zoo import UserError, read_result
from zoo.classifier import Classifier
from zoo.comparable import battery
from zoo.datasets.base import Dataset
from zoo.records import Proportion, Result


@pytest.fixture(scope="module")
def result(plain_classifier: Classifier, digits_test: Dataset) -> Result:
    part = digits_test.take(20)
    return evaluate(plain_classifier, part, eps=0.1, attacks=["fgsm"], measure=())


def test_a_proportion_compares_and_is_a_number() -> None:
    half, most = Proportion.of(5, 10), Proportion.of(9, 10)
    assert float(half) == 0.5
    assert half < most
    assert most > half
    assert half <= 0.5 <= half
    assert max(half, most) is most
    assert sorted([most, half]) == [half, most]
    with pytest.raises(TypeError):
        assert half < "a"


def test_it_is_short_to_look_at(result: Result) -> None:
    assert len(repr(result)) < 300
    for text in (repr(result), result._repr_html_()):
        assert str(result.robust) in text
        assert str(result.clean) in text
    hostile = result.model.model_copy(update={"reference": "<script>"})
    assert "<script>" not in result.model_copy(update={"model": hostile})._repr_html_()


def test_nothing_attacked_is_no_robust_figure(
    plain_classifier: Classifier, digits_test: Dataset
) -> None:
    part = digits_test.take(20)
    result = evaluate(plain_classifier, part, eps=0.1, attacks="none", measure=())
    for text in (repr(result), result._repr_html_()):
        assert str(result.clean) in text
        assert ">robust<" not in text
        assert "robust 9" not in text
    row = SummaryRow.of(result, None)
    assert row.robust is None
    assert row.cells()[-1] == "-"


def test_report_and_check_name_the_engines_that_ran(result: Result) -> None:
    art = f"art {version('adversarial-robustness-toolbox')}"
    assert (result.engine, result.engines) == ("robrep", art)
    assert battery(result) == f"fgsm ({art}): fgsm"
    assert any(line.startswith(f"Engine: {art};") for line in footnotes(result))
    own = result.attacks[0].model_copy(update={"engine": "robrep 0.2.0"})
    both = {"attacks": [own, *result.attacks], "engine": "robrep (official-rng)"}
    mixed = result.model_copy(update=both)
    assert mixed.engines == f"robrep 0.2.0 (official-rng), {art}"


def test_its_examples_as_a_table(result: Result) -> None:
    pandas = pytest.importorskip("pandas")
    table = result.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == [
        "index",
        "label",
        "clean_prediction",
        "verdict",
        "fgsm",
    ]
    assert (table.label == table.clean_prediction).sum() == result.clean.k
    assert (table.verdict == "robust").sum() == result.robust.k


def test_it_is_saved_and_read_again(result: Result, tmp_path: Path) -> None:
    path = result.save(tmp_path / "new" / "folder")
    assert read_result(path) == result
    with pytest.raises(UserError, match="already"):
        result.save(str(path.parent))


def test_a_bar_reaches_the_end(
    plain_classifier: Classifier,
    digits_test: Dataset,
    capsys: pytest.CaptureFixture[str],
) -> None:
    part = digits_test.take(8)
    evaluate(plain_classifier, part, eps=0.1, attacks="fgsm", measure=(), progress=True)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert last.startswith("done")
    assert "100%" in last
