"""Comparison against statsmodels, simulation, and rows counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import proportion_confint

from robrep_eval.compare import (
    attack_column,
    compare,
    compare_files,
    mcnemar,
    paired_difference,
    paired_interval,
    wilson,
)
from zoo.errors import UserError
from zoo.records import (
    AttackRun,
    DatasetRecord,
    Evidence,
    Examples,
    ModelRecord,
    Outcome,
    Proportion,
    Provenance,
    Result,
)
from zoo.result_file import write_result
from zoo.threat import ThreatModel
from zoo.verdicts import clean_accuracy, robust_accuracy, robust_under, verdicts

F, H, S = Outcome.FOOLED, Outcome.HELD, Outcome.SKIPPED


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_the_p_value_is_statsmodels_exact_one(only_a: int, only_b: int) -> None:
    table = [[10, only_a], [only_b, 10]]
    want = reference_mcnemar(table, exact=True).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(want, rel=1e-9)


@given(st.integers(0, 200), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_wilson_is_statsmodels_one(k: int, n: int) -> None:
    k = min(k, n)
    want = proportion_confint(k, n, method="wilson")
    assert wilson(k, n) == pytest.approx(want, abs=1e-12)


def test_the_interval_of_the_published_example() -> None:
    # Newcombe 1998, table II, method 10: 36, 12, 2, 0 gives 0.2 (0.0569, 0.3404).
    low, high = paired_interval(36, 2, 12, 0)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_the_interval_covers_the_true_difference_about_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    cells = np.array([0.5, 0.05, 0.15, 0.3])  # both, only a, only b, neither
    hits = 0
    for counts in rng.multinomial(100, cells, size=2000):
        low, high = paired_interval(*map(int, counts))
        hits += low <= 0.10 <= high
    assert 0.935 <= hits / 2000 <= 0.975


def test_equal_columns_do_not_differ_and_swapping_mirrors() -> None:
    a = [True, True, False, True, False, False, True, True]
    same = paired_difference("x", a, a)
    assert same.difference == 0
    assert same.p_value == 1
    assert same.low <= 0 <= same.high
    b = [True, False, True, True, True, True, True, True]
    one, other = paired_difference("x", a, b), paired_difference("x", b, a)
    assert one.difference == -other.difference == pytest.approx(2 / 8)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert (one.only_a, one.only_b) == (1, 3)


def make_result(
    outcomes: dict[str, list[Outcome]],
    *,
    index: list[int],
    clean: list[int],
    label: list[int] | None = None,
    eps: float = 0.1,
    sequence: bool = True,
    dataset: str = "digits",
) -> Result:
    """A record with these outcomes; what does not matter here is filled in."""
    n = len(index)
    draft = Examples.model_construct(
        index=index,
        label=label or [0] * n,
        clean_prediction=clean,
        verdict=[],
        outcomes=outcomes,
    )
    examples = Examples(**{**dict(draft), "verdict": verdicts(draft)})
    names = list(outcomes)
    return Result(
        model=ModelRecord(
            reference="zoo:x",
            arch="a",
            parameters=1,
            weights_sha256="0" * 64,
            file="c",
            file_sha256="0" * 64,
        ),
        probe=None,
        dataset=DatasetRecord(
            name=dataset,
            split="test",
            n=n,
            sha256="0" * 64,
            classes=2,
            shape=(1, 8, 8),
        ),
        threat=ThreatModel(norm="Linf", eps=eps),
        battery="standard",
        engine="reference",
        chunk_size=8,
        seed=0,
        clean=clean_accuracy(examples),
        robust=robust_accuracy(examples),
        undecided=0,
        attacks=[
            AttackRun(
                name=name,
                engine="e",
                sequence=sequence,
                parameters={},
                attempted=n,
                fooled=outcomes[name].count(F),
                refused=0,
                undecided=0,
                robust=robust_under(examples, names, [sequence] * len(names), at),
                seconds=0.0,
            )
            for at, name in enumerate(names)
        ],
        examples=examples,
        evidence=Evidence(file="e", file_sha256="0" * 64, count=0, tolerance=0.0),
        seconds={},
        provenance=Provenance(robrep="0", versions={}, device="cpu", threads=1),
    )


A = make_result(
    {"apgd-ce": [F, H, H, H, S], "square": [S, F, H, H, S]},
    index=[0, 1, 2, 3, 4],
    clean=[0, 0, 0, 0, 1],
)
B = make_result(
    {"apgd-ce": [H, H, F, H], "pgd": [H, H, H, H]},
    index=[2, 0, 1, 9],
    clean=[0, 0, 0, 0],
)


def test_rows_are_counted_on_shared_examples_only() -> None:
    found = compare(A, B)
    rows = {row.name: row for row in found.rows}
    assert found.shared == 3
    assert list(rows) == ["clean", "robust", "apgd-ce"]
    assert found.only_in_one == ["pgd", "square"]
    assert rows["clean"].difference == 0
    # Held by A: example 2; by B: 2 and 0.
    assert (rows["robust"].a.k, rows["robust"].b.k) == (1, 2)
    # Under apgd-ce alone A also holds example 1, which B loses.
    assert (rows["apgd-ce"].a.k, rows["apgd-ce"].b.k) == (2, 2)
    assert (rows["apgd-ce"].only_a, rows["apgd-ce"].only_b) == (1, 1)


@pytest.mark.parametrize("sequence", [True, False])
def test_the_columns_add_up_to_the_recorded_figures(sequence: bool) -> None:
    result = make_result(
        {"one": [F, H, H, H], "two": [S, F, H, H], "three": [S, S, H, F]},
        index=[0, 1, 2, 3],
        clean=[0, 0, 0, 0],
        sequence=sequence,
    )
    for run in result.attacks:
        assert sum(attack_column(result, run.name)) == run.robust.k
        assert Proportion.of(sum(attack_column(result, run.name)), 4) == run.robust


def test_results_that_do_not_match_are_refused() -> None:
    other = make_result({}, index=[0], clean=[0], eps=0.2)
    with pytest.raises(UserError, match=r"threat model.*51/255"):
        compare(A, other)
    other = make_result({}, index=[0], clean=[0], dataset="mnist")
    with pytest.raises(UserError, match="dataset digits against mnist"):
        compare(A, other)
    with pytest.raises(UserError, match="share no example"):
        compare(A, make_result({}, index=[77], clean=[0]))
    with pytest.raises(UserError, match="two different labels"):
        compare(A, make_result({}, index=[1], clean=[0], label=[1]))


def test_files_and_folders_are_both_read(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_result(a, A)
    write_result(b, B)
    assert compare_files(a, b / "result.json") == compare(A, B)
