"""Records: intervals, schema errors, verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from zoo.errors import UserError
from zoo.files import atomic, write_json
from zoo.records import (
    Card,
    Examples,
    Outcome,
    Proportion,
    Training,
    Verdict,
    read_record,
    validated,
    write_record,
)
from zoo.verdicts import (
    correct,
    robust,
    robust_against,
    robust_under,
    verdicts,
)

CARD = Card(
    name="a-b",
    description="d",
    arch="resnet_s8",
    shape=(1, 8, 8),
    dim=4,
    training=Training(method="simclr", dataset="digits"),
    sha256="0" * 64,
    licence="MIT",
)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_are_clopper_pearson(case: tuple[int, int]) -> None:
    k, n = case
    got = Proportion.of(k, n)
    want = binomtest(k, n).proportion_ci(confidence_level=0.95, method="exact")
    assert got.low == pytest.approx(want.low, abs=1e-10)
    assert got.high == pytest.approx(want.high, abs=1e-10)
    assert got.low <= got.value <= got.high


def test_no_examples_have_no_proportion() -> None:
    with pytest.raises(ValueError, match="0 of 0"):
        Proportion.of(0, 0)


def test_records_round_trip_and_name_the_wrong_field(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    write_record(path, CARD)
    assert read_record(path, Card) == CARD
    write_json(path, {**CARD.model_dump(mode="json"), "sha256": "xyz"})
    with pytest.raises(UserError, match="not a valid card: sha256"):
        read_record(path, Card)
    write_json(path, {**CARD.model_dump(mode="json"), "schema_version": 9})
    with pytest.raises(UserError, match="schema version 9"):
        read_record(path, Card)
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_record(path, Card)


@pytest.mark.parametrize("name", ["../x", "/x", "X", "", ".hidden", "a b", "a/b"])
def test_names_that_could_escape_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Card.model_validate({**CARD.model_dump(mode="json"), "name": name})


F, H, R, U, S = (
    Outcome.FOOLED,
    Outcome.HELD,
    Outcome.REFUSED,
    Outcome.UNDECIDED,
    Outcome.SKIPPED,
)


@pytest.mark.parametrize(
    ("clean", "outcomes", "want"),
    [
        (0, [H, H], Verdict.ROBUST),
        (0, [], Verdict.ROBUST),
        (0, [F, S], Verdict.FOOLED),
        (0, [U, F], Verdict.FOOLED),
        (0, [H, U], Verdict.UNDECIDED),
        (0, [R, H], Verdict.UNDECIDED),
        (1, [S, S], Verdict.MISCLASSIFIED),
        (-1, [S], Verdict.UNDECIDED),
    ],
)
def test_verdicts(clean: int, outcomes: list[Outcome], want: Verdict) -> None:
    assert verdicts(examples_of([(0, clean, outcomes)])) == [want]


def examples_of(rows: list[tuple[int, int, list[Outcome]]]) -> Examples:
    """Label, clean prediction and the outcome of each attack, example by example."""
    columns = zip(*(outcomes for _, _, outcomes in rows), strict=True)
    draft = Examples(
        index=list(range(len(rows))),
        label=[label for label, _, _ in rows],
        clean_prediction=[clean for _, clean, _ in rows],
        verdict=[Verdict.UNDECIDED] * len(rows),
        outcomes={f"attack-{at}": list(each) for at, each in enumerate(columns)},
    )
    return draft.model_copy(update={"verdict": verdicts(draft)})


def one_by_one(label: int, clean: int, outcomes: list[Outcome]) -> Verdict:
    """The rule as docs/reference/zoo.md has it, for one example."""
    if clean == -1:
        return Verdict.UNDECIDED
    if label != clean:
        return Verdict.MISCLASSIFIED
    if F in outcomes:
        return Verdict.FOOLED
    return Verdict.UNDECIDED if U in outcomes or R in outcomes else Verdict.ROBUST


ROWS = st.integers(0, 4).flatmap(
    lambda attacks: st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(-1, 2),
            st.lists(st.sampled_from(Outcome), min_size=attacks, max_size=attacks),
        ),
        min_size=1,
        max_size=12,
    )
)


@given(ROWS, st.lists(st.booleans(), min_size=4, max_size=4))
def test_columns_are_counted_as_one_by_one(
    rows: list[tuple[int, int, list[Outcome]]], flags: list[bool]
) -> None:
    found = examples_of(rows)
    assert found.verdict == [one_by_one(*row) for row in rows]
    assert correct(found).tolist() == [label == clean for label, clean, _ in rows]
    assert robust(found).tolist() == [v is Verdict.ROBUST for v in found.verdict]
    names = list(found.outcomes)
    sequence = flags[: len(names)]
    for at in range(len(names)):
        want = []
        for label, clean, outcomes in rows:
            seen = [o for o, s in zip(outcomes[:at], sequence, strict=False) if s]
            counted = [*(seen if sequence[at] else []), outcomes[at]]
            want.append(one_by_one(label, clean, counted) is Verdict.ROBUST)
        assert robust_against(found, names, sequence, at).tolist() == want
        assert robust_under(found, names, sequence, at).k == sum(want)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": -1}, "dim: Input should be greater than 0, not -1"),
        ({"name": "A B"}, "not 'A B'"),
        ({"licence": None}, "licence: Input should be a valid string, not None"),
        ({"arch": "x" * 99, "dim": "y" * 99}, "not 'yyy"),
    ],
)
def test_the_message_has_the_value(change: dict[str, Any], message: str) -> None:
    content = {
        "schema_version": 1,
        "name": "a",
        "description": "a test",
        "arch": "resnet_s8",
        "shape": [1, 8, 8],
        "dim": 8,
        "training": {"method": "tarrl", "dataset": "digits"},
        "sha256": "0" * 64,
        "licence": "none",
    }
    assert validated(content, Card, "card.json").dim == 8
    with pytest.raises(UserError) as caught:
        validated({**content, **change}, Card, "card.json")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250
