"""Comparison of two results: rows counted by hand, and what is no comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from robrep_eval.commands.cli import cli
from robrep_eval.compare import compare, compare_files
from zoo.errors import UserError
from zoo.records import (
    AttackRun,
    DatasetRecord,
    Evidence,
    Examples,
    ModelRecord,
    Outcome,
    Provenance,
    Result,
)
from zoo.result_file import write_result
from zoo.threat import ThreatModel
from zoo.verdicts import clean_accuracy, robust_accuracy, robust_under, verdicts

F, H, S = Outcome.FOOLED, Outcome.HELD, Outcome.SKIPPED


def make_result(
    outcomes: dict[str, list[Outcome]],
    *,
    index: list[int],
    clean: list[int],
    label: list[int] | None = None,
    eps: float = 0.1,
    sequence: bool = True,
    dataset: str = "digits",
    sha256: str = "0" * 64,
    battery: str = "standard",
    parameters: dict[str, Any] | None = None,
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
            sha256=sha256,
            classes=2,
            shape=(1, 8, 8),
        ),
        threat=ThreatModel(norm="Linf", eps=eps),
        battery=battery,
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
                parameters=parameters or {},
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
    rows = {row.name: row for row in compare(result, result).rows}
    assert rows["clean"].a == result.clean
    assert rows["robust"].a == result.robust
    for run in result.attacks:
        assert rows[run.name].a == rows[run.name].b == run.robust


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
    here: dict[str, Any] = {"index": [0, 1], "clean": [0, 0]}
    one, other = make_result({}, **here), make_result({}, **here, sha256="1" * 64)
    with pytest.raises(UserError, match="images there differ"):
        compare(one, other)
    # Other positions have another hash by right.
    part = make_result({}, index=[1], clean=[0], sha256="1" * 64)
    assert compare(one, part).shared == 1


def test_what_else_differs_is_said(tmp_path: Path) -> None:
    here: dict[str, Any] = {"index": [0, 1], "clean": [0, 0]}
    one = make_result({"pgd": [F, H]}, **here, parameters={"steps": 40, "starts": 5})
    assert compare(one, one).cautions == []
    more = make_result({"pgd": [F, H]}, **here, parameters={"steps": 100, "starts": 5})
    assert compare(one, more).cautions == [
        "pgd ran with other settings: steps 40 against 100"
    ]
    alone = make_result({"pgd": [F, H]}, **here, sequence=False, battery="full")
    battery, order = compare(alone, make_result({"pgd": [F, H]}, **here)).cautions
    assert "A was attacked with full, B with standard" in battery
    assert "pgd ran on all images in A, in B only on those" in order
    folder: dict[str, Any] = {"dataset": "imagefolder:pets"}
    parts = [
        make_result({}, index=[0, at], clean=[0, 0], sha256=f"{at}" * 64, **folder)
        for at in (1, 2)
    ]
    (unproven,) = compare(*parts).cautions
    assert "different parts of a folder" in unproven
    for name, result in (("a", alone), ("b", one)):
        (tmp_path / name).mkdir()
        write_result(tmp_path / name, result)
    told = CliRunner().invoke(
        cli, ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
    )
    assert told.exit_code == 0
    assert told.output.index("A was attacked with full") < told.output.index("B - A")


def test_files_and_folders_are_both_read(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_result(a, A)
    write_result(b, B)
    assert compare_files(a, b / "result.json") == compare(A, B)
