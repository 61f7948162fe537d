"""`--audit N`: all images by one battery, a sample of those left by `standard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robrep_eval import evaluate
from robrep_eval.attacks.battery import build
from zoo.classifier import Classifier
from zoo.errors import UserError, VerificationError
from zoo.records import Audit, Outcome, Result
from zoo.recount import check_figures
from zoo.two_phases import draw, line
from zoo.verification import verify_folder

SETTINGS: dict[str, Any] = {
    "dataset": "digits",
    "eps": 0.1,
    "attacks": "fgsm",
    "limit": 24,
    "measure": (),
    "seed": 5,
}


@pytest.fixture(scope="module")
def audited(
    plain_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("audit") / "run"
    return evaluate(
        plain_classifier, **SETTINGS, audit=6, chunk_size=7, output=folder
    ), folder


def test_the_sample_is_drawn_by_the_seed(audited: tuple[Result, Path]) -> None:
    result, folder = audited
    found = result.audit
    assert found is not None
    assert (result.battery, found.seed) == ("fgsm,audit:6", 5)
    assert found.attacks == ["apgd-ce", "apgd-t", "fab-t", "square"]
    rows = draw(result.examples, ["fgsm"], 6, 5)
    column = result.examples.outcomes["apgd-ce"]
    tried = [row for row, outcome in enumerate(column) if outcome != Outcome.SKIPPED]
    assert tried == rows
    assert 0 < found.fell <= found.drawn == 6 < found.standing
    assert result.robust.k == found.standing - found.fell >= found.robust_low
    assert verify_folder(folder)
    assert f"audit of 6 of {found.standing} survivors" in (line(result) or "")
    assert f"audit: robust {found.robust_low} to {found.robust_high}" in repr(result)


def test_it_covers_what_the_union_of_both_comes_to(
    audited: tuple[Result, Path], plain_classifier: Classifier
) -> None:
    result, _ = audited
    both = {**SETTINGS, "attacks": "fgsm,standard"}
    union = evaluate(plain_classifier, **both)
    assert result.audit is not None
    assert result.audit.robust_low <= union.robust.k <= result.audit.robust_high
    rows = draw(result.examples, ["fgsm"], 6, 5)
    assert [union.examples.verdict[r] for r in rows] == [
        result.examples.verdict[r] for r in rows
    ]


def test_chunks_do_not_matter(
    audited: tuple[Result, Path], plain_classifier: Classifier
) -> None:
    again = evaluate(plain_classifier, **SETTINGS, audit=6, chunk_size=24)
    assert again.audit == audited[0].audit
    assert again.examples == audited[0].examples


@pytest.mark.parametrize(
    ("field", "by"),
    [("fell", -1), ("standing", 1), ("drawn", 1), ("seed", 1), ("robust_low", 1)],
)
def test_what_does_not_follow_is_refused(
    audited: tuple[Result, Path], field: str, by: int
) -> None:
    result, _ = audited
    assert result.audit is not None
    values = result.audit.model_dump()
    forged = Audit(**values | {field: values[field] + by})
    with pytest.raises(VerificationError, match=r"audit|tried"):
        check_figures(result.model_copy(update={"audit": forged}))
    with pytest.raises(VerificationError, match=r"disagree|tried"):
        check_figures(result.model_copy(update={"audit": None}))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("audit:5", "others before it"),
        ("none,audit:5", "others before it"),
        ("audit:5,fgsm", "name it once, last"),
        ("fgsm,audit:0", "no number of images"),
        ("standard,audit:5", "'apgd-ce' is named twice"),
    ],
)
def test_what_cannot_be_audited(words: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build(words)


def test_draws_must_belong_to_the_image() -> None:
    with pytest.raises(UserError, match="leave --engine"):
        build("fgsm,audit:5", engine="reference")
    with pytest.raises(UserError, match="leave --engine"):
        build("fgsm,audit:5", randomness="official-rng")
