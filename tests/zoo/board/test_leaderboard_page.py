"""The leaderboard's page in a real browser, without any network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boards import HOSTILE, board
from browsing import View

from zoo.board.leaderboard import Board
from zoo.board.page import page
from zoo.board.scatter import scatter


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text(page(board()), encoding="utf-8")
    return path


def names(view: View) -> list[str]:
    """Encoders that are shown, in order."""
    shown = "tbody tr:not([hidden]) .open"
    return [str(text) for text in view.tab.locator(shown).all_inner_texts()]


@pytest.fixture
def view(browser: Any, file: Path) -> Iterator[View]:
    opened = View(browser, file)
    yield opened
    assert opened.errors == []
    assert opened.requests == [file.as_uri()]
    opened.context.close()


ALL = [row.card.name for row in board().rows]


@pytest.mark.browser
def test_shows_every_entry_with_its_interval(view: View) -> None:
    assert names(view) == ALL
    first = view.tab.locator("tbody tr").first.inner_text()
    assert "46.3" in first
    assert "[43.2, 49.4]" in first
    ranks = view.tab.locator("tbody td[data-label=rank]").all_inner_texts()
    assert [" ".join(rank.split()) for rank in ranks] == [
        *("1 to 2 of 4", "1 to 3 of 4", "2 to 3 of 4", "4 of 4"),
        *("1 of 1", "1 of 1", "1 of 1"),
    ]


@pytest.mark.browser
def test_groups_are_kept_apart_until_rows_are_sorted(view: View) -> None:
    def apart() -> list[str]:
        return [
            name
            for at, name in enumerate(names(view))
            if view.tab.locator("tbody tr td:first-child")
            .nth(at)
            .evaluate("cell => getComputedStyle(cell).borderTopStyle")
            == "double"
        ]

    assert apart() == ["tarrl-cifar10-l2", "hostile", "plain-digits"]
    view.tab.click("button[data-sort=robust]")
    assert apart() == []


@pytest.mark.browser
def test_a_doubtful_figure_is_marked(view: View) -> None:
    marked = view.tab.locator("tr:has(.doubt) .open").all_inner_texts()
    assert marked == ["simclr-cifar10"]
    view.tab.click("text=simclr-cifar10")
    assert "Gradients vanish." in view.tab.inner_text("dialog[open]")


@pytest.mark.browser
def test_sorts_by_number_and_by_name(view: View) -> None:
    robust = [row.robust.value for row in board().rows]
    best = sorted(ALL, key=lambda name: -robust[ALL.index(name)])
    view.tab.click("button[data-sort=robust]")
    assert names(view) == best
    assert view.tab.get_attribute("th:has([data-sort=robust])", "aria-sort") == (
        "descending"
    )
    view.tab.click("button[data-sort=robust]")
    assert names(view) == best[::-1]
    view.tab.click("button[data-sort=name]")
    assert names(view) == sorted(ALL)


@pytest.mark.browser
def test_filters_and_search_narrow_and_are_kept_in_the_address(
    view: View, browser: Any, file: Path
) -> None:
    view.tab.select_option("select[data-filter=dataset]", "cifar10")
    view.tab.fill("#search", "TARRL l2")
    assert names(view) == ["tarrl-cifar10-l2"]
    assert view.tab.inner_text("#count") == "1 of 7 entries"
    faded = view.tab.locator(".point.faded").count()
    assert faded == 6
    address = view.tab.evaluate("location.href")
    again = browser.new_page()
    again.goto(address)
    assert again.inner_text("#count") == "1 of 7 entries"
    again.close()
    view.tab.fill("#search", "nothing like this")
    assert view.tab.is_visible("#none")
    view.tab.click("#reset")
    assert names(view) == ALL
    assert "#" not in view.tab.evaluate("location.href")


@pytest.mark.browser
@pytest.mark.parametrize("facet", ["threat", "protocol", "method", "arch"])
def test_every_filter_filters(view: View, facet: str) -> None:
    options = view.tab.locator(f"select[data-filter={facet}] option").all_inner_texts()
    total = 0
    for option in options[1:]:
        view.tab.select_option(f"select[data-filter={facet}]", option)
        total += len(names(view))
    assert len(options) > 2
    assert total == len(ALL)  # each entry is of exactly one kind


@pytest.mark.browser
def test_each_row_opens_its_card_by_keyboard_alone(view: View) -> None:
    for name in ALL[:2]:
        view.tab.locator(f"tbody .open:text-is('{name}')").focus()
        view.tab.keyboard.press("Enter")
        dialog = view.tab.locator("dialog[open]")
        assert dialog.locator("h2").inner_text() == name
        assert (
            f"robrep-zoo verify {name}/entry --source https://example.org/zoo"
        ) in dialog.inner_text()
        view.tab.keyboard.press("Escape")
        assert view.tab.locator("dialog[open]").count() == 0
    focused = view.tab.evaluate("document.activeElement.textContent")
    assert focused == ALL[1]  # back where the reader was


@pytest.mark.browser
def test_headings_are_reached_by_tab(view: View) -> None:
    view.tab.locator("#reset").focus()
    view.tab.keyboard.press("Tab")
    assert view.tab.evaluate("document.activeElement.dataset.sort") == "rank"
    view.tab.keyboard.press("Tab")
    view.tab.keyboard.press("Space")
    assert names(view) == sorted(ALL)


@pytest.mark.browser
def test_a_point_and_a_row_open_the_card_by_mouse(view: View) -> None:
    view.tab.locator(".point circle").nth(3).click()
    assert view.tab.inner_text("dialog[open] h2") == ALL[3]
    view.tab.click("dialog[open] .close")
    view.tab.locator("tbody tr").nth(4).locator("td").nth(1).click()
    assert view.tab.inner_text("dialog[open] h2") == ALL[4]
    assert view.tab.get_attribute("dialog[open] a", "href") == (
        "https://example.org/paper"
    )


@pytest.mark.browser
def test_hostile_text_stays_text(view: View) -> None:
    view.tab.click("text=hostile")
    text = view.tab.inner_text("dialog[open]")
    assert text.count(HOSTILE) >= 3
    assert view.tab.locator("dialog[open] a").count() == 0  # no javascript: link
    assert view.tab.locator("img").count() == 0
    assert view.tab.evaluate("typeof window.owned") == "undefined"


@pytest.mark.browser
def test_the_policy_stops_foreign_script_and_requests(browser: Any, file: Path) -> None:
    view = View(browser, file)
    view.tab.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.owned = 1";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "https://example.invalid/x.png";
            document.body.append(image);
        }"""
    )
    assert view.tab.evaluate("typeof window.owned") == "undefined"
    assert len(view.errors) == 2
    assert all("Content Security Policy" in error for error in view.errors)
    view.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 820])
def test_fits_a_narrow_screen(browser: Any, file: Path, width: int) -> None:
    view = View(browser, file, viewport={"width": width, "height": 800})
    assert view.tab.evaluate("document.documentElement.scrollWidth") <= width
    button = view.tab.locator("tbody .open").first
    button.click()
    box = view.tab.locator("dialog[open]").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert view.errors == []
    view.context.close()


@pytest.mark.browser
def test_dark_where_the_reader_wants_it_dark(browser: Any, file: Path) -> None:
    def brightness(scheme: str) -> tuple[int, int]:
        view = View(browser, file, color_scheme=scheme)
        style = "getComputedStyle(document.body)"
        found = []
        for what in ("backgroundColor", "color"):
            color = view.tab.evaluate(f"{style}.{what}")
            found.append(sum(map(int, re.findall(r"\d+", color)[:3])))
        view.context.close()
        return found[0], found[1]

    paper, ink = brightness("light")
    assert paper > ink + 400
    paper, ink = brightness("dark")
    assert ink > paper + 400


@pytest.mark.browser
def test_an_empty_board_is_a_page_too(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    path.write_text(page(Board(source="embedded", rows=[])), encoding="utf-8")
    view = View(browser, path)
    assert view.tab.inner_text("#count") == "0 of 0 entries"
    assert view.errors == []
    view.context.close()


def test_the_page_is_small_and_the_same_each_time() -> None:
    assert page(board()) == page(board())
    assert len(page(board())) < 60_000


def test_points_lie_where_their_figures_say() -> None:
    plot = scatter(board().rows)
    for point, row in zip(plot.points, board().rows, strict=True):
        share = (row.clean.value - plot.x.low) / (plot.x.high - plot.x.low)
        want = plot.x.start + share * (plot.x.end - plot.x.start)
        assert point.x == pytest.approx(want, abs=0.06)
        assert point.x_low <= point.x <= point.x_high
        assert point.y_low >= point.y >= point.y_high  # SVG counts downwards
