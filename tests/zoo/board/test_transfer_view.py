"""The transfer view: which entries, over which tasks, and in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accessibility import violations
from boards import HOSTILE, board, row
from browsing import View

from zoo.board.leaderboard import Board, Row
from zoo.board.page import page
from zoo.board.transfer import is_transfer, transfer
from zoo.suites.suite import load_suite


def entry(name: str, dataset: str, robust: int, **fields: Any) -> Row:
    """An encoder of cifar10 on this dataset, of 1,000 images."""
    card = {"method": "tarrl", **fields.pop("card", {})}
    reference = f"{name}/{dataset}"
    clean = fields.pop("clean", 900)
    return row(
        name, clean, robust, dataset=dataset, reference=reference, card=card, **fields
    )


LABELS = {"method": "at", "labels": True}
ROWS = [
    entry("ours", "cifar10", 500, clean=800),
    entry("ours", "digits@3x32x32", 700),
    entry("ours", "cifar10+animals", 900),
    entry("theirs", "cifar10", 520, card=LABELS),
    entry("theirs", "digits@3x32x32", 300, card=LABELS, judgement="doubtful"),
    entry("theirs", "cifar10+animals", 890, card=LABELS, judgement="broken"),
    entry("part", "digits@3x32x32", 990),
    entry("part", "svhn", 100),
    entry("stays", "cifar10", 999),
    entry("ours", "stl10@3x32x32", 999, battery="custom"),
    entry("ours", "gtsrb@3x32x32", 999, images="selected images"),
]


def transferred(rows: list[Row] = ROWS) -> Board:
    return Board(source="https://example.org/zoo", rows=rows)


def test_only_encoders_with_another_task_are_in_it() -> None:
    (table,) = transfer(transferred())
    assert table.pretraining == "cifar10"
    assert [line.encoder for line in table.lines] == ["ours", "theirs", "part"]
    assert [task.partition(",")[0] for task in table.tasks] == [
        *("cifar10", "cifar10+animals", "digits@3x32x32", "svhn"),
    ]
    assert transfer(transferred([r for r in ROWS if r.dataset == "cifar10"])) == []


@pytest.mark.parametrize(
    ("dataset", "moved"),
    [("cifar10", False), ("cifar10@3x64x64", False), ("cifar10+grey", True),
     ("svhn", True), ("svhn@nonsense", True)],
)  # fmt: skip
def test_another_task_is_other_images_or_another_question(
    dataset: str, moved: bool
) -> None:
    assert is_transfer(entry("x", dataset, 1)) is moved


def test_mean_and_worst_are_over_the_tasks_of_most_of_them() -> None:
    (table,) = transfer(transferred())
    assert table.counted == [True, True, True, False]
    ours, theirs, part = table.lines
    assert ours.robust_mean == pytest.approx((0.5 + 0.9 + 0.7) / 3)
    assert ours.clean_mean == pytest.approx((0.8 + 0.9 + 0.9) / 3)
    assert (ours.robust_worst, ours.clean_worst) == (0.5, 0.8)
    assert (theirs.robust_worst, theirs.labels) == (0.3, True)
    assert (part.robust_mean, part.robust_worst) == (None, None)
    assert [line.judgement for line in table.lines] == [
        *("not checked", "broken", "not checked"),
    ]
    assert [cell is None for cell in part.cells] == [True, True, False, False]


def test_a_task_of_no_more_than_half_of_them_does_not_count() -> None:
    """Else a suite that half of them were asked would take the mean from the rest."""
    rows = [entry("a", "svhn", 500), entry("b", "svhn", 400), entry("a", "mnist", 300)]
    (table,) = transfer(transferred(rows))
    counted = dict(zip(table.tasks, table.counted, strict=True))
    assert [counts for task, counts in counted.items() if "svhn" in task] == [True]
    assert [counts for task, counts in counted.items() if "mnist" in task] == [False]
    assert all(line.robust_mean is not None for line in table.lines)


def test_another_radius_share_of_labels_or_dataset_is_another_column() -> None:
    rows = [
        entry("a", "svhn", 500),
        entry("a", "svhn", 500, threat={"norm": "Linf", "eps": 0.1}),
        entry("a", "svhn", 500, version="dataset 2, probe 1"),
        entry("a", "svhn", 500, protocol="SLF, 10% labels"),
    ]
    (table,) = transfer(transferred(rows))
    assert len(table.tasks) == 4


def test_another_protocol_or_battery_is_another_table() -> None:
    """A mean over both would be of nothing."""
    rows = [
        entry("a", "svhn", 500),
        entry("a", "svhn", 500, battery="quick"),
        entry("a", "svhn", 500, protocol="SLF-R"),
        entry("a", "svhn", 500, version="dataset 1, probe 2"),
        entry("a", "digits", 500, version="probe 2"),
        entry("a", "svhn", 900, battery="none"),
    ]
    found = {table.kind: table.tasks for table in transfer(transferred(rows))}
    assert list(found) == [
        "SLF version 2, standard", "SLF, quick", "SLF, standard", "SLF-R, standard",
    ]  # fmt: skip
    assert [len(tasks) for tasks in found.values()] == [2, 1, 1, 1]


def test_a_mean_of_nothing_is_last_and_of_a_broken_evaluation_before_it() -> None:
    rows = [
        entry("zero", "svhn", 0),
        entry("a-broken", "svhn", 999, judgement="broken"),
        entry("half", "svhn", 500, judgement="doubtful"),
        *(entry(name, "digits", 1) for name in ("zero", "a-broken", "half", "more")),
    ]
    (table,) = transfer(transferred(rows))
    assert [line.encoder for line in table.lines] == [
        "half",
        "zero",
        "a-broken",
        "more",
    ]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("transfer") / "leaderboard.html"
    asked = ("cifar10", "cifar10+animals", "digits@3x32x32")
    card = {"method": HOSTILE}
    hostile = [entry("evil", one, 10, clean=20, card=card) for one in asked]
    path.write_text(page(transferred([*ROWS, *hostile])), encoding="utf-8")
    return path


@pytest.fixture
def view(browser: Any, file: Path) -> Iterator[View]:
    opened = View(browser, file)
    yield opened
    assert (opened.errors, opened.outside) == ([], [])
    assert not opened.tab.evaluate("window.owned")
    opened.context.close()


def lines(view: View) -> list[list[str]]:
    rows = view.tab.locator("#transfer tbody tr").all()
    return [[" ".join(c.split()) for c in r.locator("th, td").all_inner_texts()]
            for r in rows]  # fmt: skip


@pytest.mark.browser
def test_the_view_is_chosen_filtered_and_linked_to(view: View, file: Path) -> None:
    tab = view.tab
    assert not tab.locator("#transfer").is_visible()
    tab.click("button[data-view=transfer]")
    assert not tab.locator("#rows").is_visible()
    found = lines(view)
    assert [row[0].split()[0] for row in found] == ["ours", "evil", "theirs", "part"]
    theirs = found[2]  # a broken evaluation, however high it is
    assert found[0][1:3] == ["70.0", "50.0"]
    assert theirs[1:3] == ["57.0 broken", "30.0 doubtful"]
    assert "30.0 doubtful [27.2, 32.9]" in theirs
    assert any(cell.startswith("89.0 broken [") for cell in theirs)
    tab.select_option("#labels", "no")
    assert "theirs" not in [row[0].split()[0] for row in lines(view)]
    tab.select_option("#kind", "clean")
    assert lines(view)[0][1:3] == ["86.7", "80.0"]
    address = tab.url
    assert address.endswith("#view=transfer&kind=clean&pretrained=no")
    again = View(view.context.browser, file)
    again.tab.goto(address)
    again.tab.reload()
    assert lines(again) == lines(view)
    again.context.close()
    tab.click("button[data-view=ranking]")
    assert tab.locator("#rows").is_visible()
    assert tab.locator("#transfer tbody tr").count() == 0
    assert "view" not in tab.url


@pytest.mark.browser
def test_an_address_of_before_there_were_suites_still_opens_its_table(
    browser: Any, tmp_path: Path
) -> None:
    asked = [task for task in load_suite("digits").tasks if task.labels is None]
    card = {"training": {"method": "at", "dataset": "digits"}}
    rows = [
        entry(
            "a", task.dataset, 5, clean=300, n=360, card=card,
            threat={"norm": "Linf", "eps": task.eps},
        )
        for task in asked
    ]  # fmt: skip
    path = tmp_path / "leaderboard.html"
    path.write_text(page(transferred([*ROWS, *rows])), encoding="utf-8")
    opened = View(browser, path)
    opened.tab.goto(f"{path.as_uri()}#view=transfer&from=digits:+SLF,+standard")
    opened.tab.reload()
    assert opened.tab.input_value("#from").startswith("digits: suite digits, ")
    opened.context.close()


@pytest.mark.browser
def test_without_transfer_there_is_no_such_view(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.html"
    path.write_text(page(transferred(ROWS[:1])), encoding="utf-8")
    opened = View(browser, path)
    assert opened.tab.locator("[data-view]").count() == 0
    assert opened.tab.locator("#rows tbody .open").count() == 1
    assert opened.errors == []
    opened.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_the_window(
    browser: Any, file: Path, width: int
) -> None:
    opened = View(browser, file, viewport={"width": width, "height": 900})
    opened.tab.click("button[data-view=transfer]")
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= width
    first = opened.tab.locator("#transfer tbody th").first
    before = first.bounding_box()
    opened.tab.evaluate("document.querySelector('#transfer .wide').scrollLeft = 300")
    assert first.bounding_box() == before
    opened.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_has_no_objection(
    browser: Any, file: Path, scheme: str, width: int
) -> None:
    press = "button[data-view=transfer]"
    assert violations(browser, file, scheme=scheme, width=width, press=press) == []


def test_the_boards_of_other_tests_have_transfer_too() -> None:
    """Entries of an encoder of cifar10 on digits."""
    found = [(table.pretraining, table.kind) for table in transfer(board())]
    assert found == [("cifar10", "ALF, standard"), ("cifar10", "SLF, standard")]
