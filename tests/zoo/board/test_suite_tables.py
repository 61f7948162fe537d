"""The transfer view's tables of suites: which entries, and that their means are the
suites'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from boards import row

from benchmarks.claims.suites import FASHION, LABELS, SPECTRAL, results
from zoo.board.leaderboard import Board, Row, build
from zoo.board.transfer import Table, transfer
from zoo.collection.opening import open_source
from zoo.suites.suite import Suite, Task, load_suite

FEWEST = {"mnist-5k": 500, "digits": 360}


def entry(name: str, suite: Suite, task: Task, robust: float, **fields: Any) -> Row:
    """On as many images as the suite takes, by SLF and battery `fast`."""
    base = task.dataset.partition("@")[0].partition("+")[0]
    n = fields.pop("n", min(suite.images, FEWEST.get(base, suite.images)))
    training = {"method": "at", "dataset": suite.pretraining}
    values: dict[str, Any] = {
        "dataset": task.dataset,
        "reference": f"{name}/{suite.name}-{task.name}-{n}-{fields}",
        "threat": {"norm": suite.norm, "eps": task.eps},
        "battery": "fast",
        "protocol": f"SLF, {task.labels} labels" if task.labels else "SLF",
        "card": {"training": training},
    }
    return row(name, n, round(n * robust), n=n, **{**values, **fields})


def whole(name: str, suite: str, robust: float) -> list[Row]:
    found = load_suite(suite)
    return [entry(name, found, task, robust) for task in found.tasks]


def tables(*rows: Row) -> list[Table]:
    return transfer(Board(source="https://example.org/zoo", rows=list(rows)))


def test_each_suite_is_a_table_with_a_mean_of_its_own() -> None:
    """Three of five had the second one as well, and took the mean from the others."""
    rows = [one for name in "abcde" for one in whole(name, FASHION, 0.5)]
    rows += [one for name in "abc" for one in whole(name, "handwriting", 0.75)]
    own, other = tables(*rows)
    assert own.title == "fashion-mnist: suite fashion-mnist, version 2; SLF, fast"
    assert other.title == "fashion-mnist: suite handwriting, version 1; SLF, fast"
    assert (own.of, other.of) == (10, 8)
    for table, mean in ((own, 0.5), (other, 0.75)):
        assert all(table.counted)
        assert [line.robust_mean for line in table.lines] == pytest.approx(
            [mean] * len(table.lines), abs=0.002
        )
    asked = [task.dataset for task in load_suite("handwriting").tasks]
    assert [task.partition(",")[0] for task in other.tasks] == asked


@pytest.mark.parametrize(
    "fields",
    [
        {"threat": {"norm": "Linf", "eps": 0.05}},
        {"threat": {"norm": "L2", "eps": 0.1}},
        {"protocol": "SLF, 50% labels"},
        {"split": "train"},
        {"n": 501},
        {"dataset": "svhn@1x28x28"},
    ],
)
def test_what_a_suite_does_not_ask_stands_apart(fields: dict[str, Any]) -> None:
    suite = load_suite("handwriting")
    strange = entry("a", suite, suite.tasks[0], 0.1, **fields)
    of_suite, rest = tables(*whole("a", "handwriting", 0.5), strange)
    assert (of_suite.suite, of_suite.of) == ("handwriting, version 1", 8)
    assert (rest.suite, rest.of, len(rest.tasks)) == ("", 0, 1)
    assert of_suite.lines[0].robust_mean == pytest.approx(0.5)


@pytest.mark.parametrize(("usual", "other"), [(360, 20), (20, 360)])
def test_of_another_number_of_images_than_most_have_is_another_figure(
    usual: int, other: int
) -> None:
    """Else one newcomer with more images would take the column from all others."""
    suite = load_suite("handwriting")
    most = [
        entry(name, suite, task, 1, n=usual) for name in "abc" for task in suite.tasks
    ]
    one = [entry("d", suite, task, 1, n=other) for task in suite.tasks]
    of_suite, rest = tables(*most, *one)
    assert [line.encoder for line in of_suite.lines] == ["a", "b", "c"]
    assert [line.encoder for line in rest.lines] == ["d"]
    (alone,) = tables(*one)
    assert alone.of == len(suite.tasks)


def test_of_equally_many_the_larger_number_of_images_counts() -> None:
    suite = load_suite("handwriting")
    few = [entry("b", suite, task, 1, n=20) for task in suite.tasks]
    of_suite, _ = tables(*whole("a", "handwriting", 0.5), *few)
    assert [line.encoder for line in of_suite.lines] == ["a"]


def test_another_version_of_the_images_is_no_further_task() -> None:
    suite = load_suite("handwriting")
    rows = [one for name in "ab" for one in whole(name, "handwriting", 0.5)]
    other = [
        entry("c", suite, task, 1, version="dataset 2, probe 1") for task in suite.tasks
    ]
    of_suite, rest = tables(*rows, *other)
    assert (len(of_suite.tasks), of_suite.of) == (8, 8)
    assert [line.encoder for line in rest.lines] == ["c"]


def test_a_task_that_nobody_has_is_told_by_the_number_of_tasks() -> None:
    rows = whole("a", "handwriting", 0.5)[:-1]
    (table,) = tables(*rows)
    assert (len(table.tasks), table.of) == (7, 8)


@pytest.mark.parametrize("name", [FASHION, "handwriting"])
def test_means_are_those_of_the_suites_results(name: str) -> None:
    """Of the published entries, as the claims over suites read them."""
    found = transfer(build(open_source("embedded"), datasets=()))
    (table,) = [
        table
        for table in found
        if table.suite.startswith(f"{name},") and table.kind.startswith("SLF version")
    ]
    means = {line.encoder: line.robust_mean for line in table.lines}
    suite = load_suite(name)
    for encoder in (*SPECTRAL, *LABELS):
        shares = [one.robust.value for one in results(encoder, suite, "slf").values()]
        assert means[encoder] == pytest.approx(np.mean(shares))
