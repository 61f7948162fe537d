"""The leaderboard's page in a real browser, without any network.

One file in spite of its length: all look at the same page, made once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boards
import numpy as np
import numpy.typing as npt
import pytest
from accessibility import violations
from boards import HOSTILE, METHODS, board, large, many
from browsing import View

from zoo.board.leaderboard import Board
from zoo.board.page import page

FloatArray = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "leaderboard.html"
    path.write_text(page(board()), encoding="utf-8")
    return path


def names(view: View) -> list[str]:
    """Encoders that are shown, in order."""
    return [str(text) for text in view.tab.locator("tbody .open").all_inner_texts()]


def press(view: View, name: str) -> None:
    """Opens the card of this encoder."""
    view.tab.click(f"tbody .open:text-is('{name}')")


@pytest.fixture
def view(browser: Any, file: Path) -> Iterator[View]:
    opened = View(browser, file)
    yield opened
    assert opened.errors == []
    assert opened.outside == []
    opened.context.close()


FIRST = [row.card.name for row in board().rows[:4]]
"""Of the fullest dataset and threat model."""
TASKS = ["cifar10, Linf 8/255", "digits, Linf 8/255", "cifar10, L2 0.5"]


@pytest.mark.browser
def test_the_fullest_task_comes_first_with_intervals_and_ranges(view: View) -> None:
    assert view.tab.locator("#task option").all_inner_texts() == [
        f"{task} ({count})" for task, count in zip(TASKS, (4, 2, 1), strict=True)
    ]
    assert names(view) == FIRST
    first = view.tab.locator("tbody tr:has(td)").first.inner_text()
    assert "46.3" in first
    assert "[43.2, 49.4]" in first
    ranks = view.tab.locator("tbody td[data-label=rank]").all_inner_texts()
    assert [" ".join(rank.split()) for rank in ranks] == [
        *("1 to 2 of 3", "1 to 3 of 3", "2 to 3 of 3", "-"),
    ]
    assert view.tab.inner_text("#count") == "4 of 4 entries"
    methods = view.tab.locator("tbody th[scope=row] .quiet").all_inner_texts()
    assert methods == [
        f"{method}, resnet18"
        for method in ("dynacl, with labels", "deacl", "tarrl", "simclr")
    ]


@pytest.mark.browser
def test_each_entry_is_in_one_task_and_its_rank_is_told_in_words(view: View) -> None:
    found = []
    for task in TASKS:
        view.tab.select_option("#task", task)
        found += names(view)
        assert view.tab.locator(".point").count() == len(names(view))
    assert sorted(found) == sorted(row.card.name for row in board().rows)
    view.tab.select_option("#task", TASKS[0])
    press(view, "tarrl-cifar10")
    assert (
        "2 to 3 of 3 (shown to be more robust: 1; less robust: 0; not told apart: 1)"
    ) in view.tab.inner_text("dialog[open]")


@pytest.mark.browser
def test_ranks_start_over_under_a_heading(view: View) -> None:
    view.tab.select_option("#task", "digits, Linf 8/255")
    heads = view.tab.locator("tbody tr.section").all_inner_texts()
    assert heads == [f"{p} one entry, ranked among themselves" for p in ("SLF", "ALF")]
    view.tab.click("button[data-sort=robust]")
    assert view.tab.locator("tbody tr.section").count() == 0
    assert names(view) == ["plain-digits", "hostile"]


@pytest.mark.browser
def test_a_doubtful_figure_is_marked(view: View) -> None:
    marked = view.tab.locator("tr:has(.doubt) .open").all_inner_texts()
    assert marked == ["simclr-cifar10"]
    press(view, "simclr-cifar10")
    assert "Gradients vanish." in view.tab.inner_text("dialog[open]")


@pytest.mark.browser
def test_a_figure_that_nothing_checked_says_so(view: View) -> None:
    rows = view.tab.locator("tbody tr:has(td)")
    found = {row.locator(".open").inner_text(): row.inner_text() for row in rows.all()}
    marked = {name for name, text in found.items() if "not checked" in text}
    assert marked == {"dynacl-cifar10", "deacl-cifar10"}  # tarrl's is sound
    robust = view.tab.locator("tr:has(.unchecked) td:has(.unchecked)")
    assert robust.first.get_attribute("data-label") == "robust"
    assert robust.first.inner_text().startswith("46.3 not checked")


@pytest.mark.browser
def test_sorts_by_number_and_by_name(view: View) -> None:
    clean = [row.clean.value for row in board().rows]
    best = sorted(FIRST, key=lambda name: -clean[FIRST.index(name)])
    view.tab.click("button[data-sort=clean]")
    assert names(view) == best
    assert view.tab.get_attribute("th:has([data-sort=clean])", "aria-sort") == (
        "descending"
    )
    view.tab.click("button[data-sort=clean]")
    assert names(view) == best[::-1]
    view.tab.click("button[data-sort=name]")
    assert names(view) == sorted(FIRST)
    view.tab.click("button[data-sort=rank]")
    assert names(view) == FIRST


@pytest.mark.browser
def test_a_view_is_kept_in_the_address(view: View, browser: Any) -> None:
    view.tab.select_option("select[data-filter=protocol]", "SLF")
    view.tab.fill("#search", "RESNET cifar")
    view.tab.click("button[data-sort=clean]")
    want = names(view)
    assert want != FIRST
    press(view, "deacl-cifar10")
    address = view.tab.evaluate("location.href")
    again = browser.new_page()
    again.goto(address)
    assert again.locator("tbody .open").all_inner_texts() == want
    assert again.input_value("#search") == "RESNET cifar"
    assert again.input_value("select[data-filter=protocol]") == "SLF"
    assert again.inner_text("dialog[open] h2") == "deacl-cifar10"
    again.keyboard.press("Escape")
    again.evaluate(f"location.hash = 'task={TASKS[2]}'")
    again.wait_for_selector(".open:text-is('tarrl-cifar10-l2')")
    assert again.locator("tbody .open").count() == 1
    again.evaluate("location.hash = 'entry=plain-digits/entry'")  # a link to a card
    again.wait_for_selector("dialog[open]")
    assert again.input_value("#task") == TASKS[1]
    again.close()
    view.tab.keyboard.press("Escape")
    view.tab.fill("#search", "nothing like this")
    assert view.tab.is_visible("#none")
    assert view.tab.locator(".point").count() == 0
    view.tab.click("#reset")
    assert names(view) == FIRST
    assert "#" not in view.tab.evaluate("location.href")


@pytest.mark.browser
@pytest.mark.parametrize(
    "fragment",
    ["task=none&sort=toString&page=-3", "sort=%20&page=1e9&entry=x", "protocol=AFF"],
)
def test_a_broken_link_shows_the_usual_view(
    browser: Any, file: Path, fragment: str
) -> None:
    view = View(browser, file)
    view.tab.goto(f"{file.as_uri()}#{fragment}")
    view.tab.reload()
    assert names(view) == FIRST
    assert view.errors == []
    view.context.close()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("facet", "values"),
    [
        ("protocol", {"SLF": 4}),
        ("labels", {"no": 3, "yes": 1}),
        ("checks", {"not checked": 2, "broken": 1, "sound": 1}),
        ("method", {"dynacl": 1, "deacl": 1, "tarrl": 1, "simclr": 1}),
        ("arch", {"resnet18": 4}),
    ],
)
def test_every_filter_filters(view: View, facet: str, values: dict[str, int]) -> None:
    select = f"select[data-filter={facet}]"
    options = view.tab.locator(f"{select} option").all_inner_texts()
    assert sorted(options) == sorted(["all", *values])
    for value, count in values.items():
        view.tab.select_option(select, value)
        assert len(names(view)) == count
        assert view.tab.locator(".point").count() == count


@pytest.mark.browser
def test_a_method_of_the_legend_is_shown_alone(view: View) -> None:
    button = view.tab.locator("#methods button", has_text="simclr")
    button.focus()
    view.tab.keyboard.press("Enter")
    assert names(view) == ["simclr-cifar10"]
    assert button.get_attribute("aria-pressed") == "true"
    view.tab.keyboard.press("Enter")  # the focus stayed
    assert names(view) == FIRST


@pytest.mark.browser
def test_each_row_opens_its_card_by_keyboard_alone(view: View) -> None:
    for name in FIRST[:2]:
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
    assert focused == FIRST[1]  # back where the reader was


@pytest.mark.browser
def test_headings_are_reached_by_tab(view: View) -> None:
    view.tab.locator("#methods button").last.focus()
    view.tab.keyboard.press("Tab")
    assert view.tab.evaluate("document.activeElement.dataset.sort") == "rank"
    view.tab.keyboard.press("Tab")
    view.tab.keyboard.press("Space")
    assert names(view) == sorted(FIRST)


@pytest.mark.browser
def test_a_point_and_a_row_open_the_card_by_mouse(view: View) -> None:
    view.tab.locator(".point path").nth(3).click()
    assert view.tab.inner_text("dialog[open] h2") == FIRST[3]
    view.tab.click("dialog[open] .close")
    view.tab.select_option("#task", TASKS[2])
    view.tab.locator("tbody tr td[data-label=images]").first.click()
    assert view.tab.inner_text("dialog[open] h2") == "tarrl-cifar10-l2"
    assert view.tab.get_attribute("dialog[open] a", "href") == (
        "https://example.org/paper"
    )


@pytest.mark.browser
def test_points_lie_where_their_figures_say(view: View) -> None:
    ticks = view.tab.evaluate(
        """() => [...document.querySelectorAll(".grid text:not(.axis)")].map((t) =>
            [t.getAttribute("text-anchor"), +t.textContent,
             t.previousElementSibling.getAttribute(
                t.getAttribute("text-anchor") === "middle" ? "x1" : "y1")])"""
    )
    scales = {}
    for anchor in ("middle", "end"):  # below, and to the left
        (v0, p0), *_, (v1, p1) = [(v, float(p)) for a, v, p in ticks if a == anchor]
        scales[anchor] = (v0, p0, (p1 - p0) / (v1 - v0))
    paths = view.tab.locator(".point path").all()
    for path, row in zip(paths, board().rows, strict=False):
        start = re.match(r"M([\d.]+) ([\d.]+)m", path.get_attribute("d"))
        assert start is not None
        for figure, anchor, place in zip(
            (row.clean, row.robust), ("middle", "end"), start.groups(), strict=True
        ):
            value, origin, step = scales[anchor]
            want = origin + step * (100 * figure.value - value)
            assert float(place) == pytest.approx(want, abs=0.06)


@pytest.mark.browser
def test_one_colour_a_method_and_one_marker_a_protocol(
    browser: Any, tmp_path: Path
) -> None:
    path = tmp_path / "large.html"
    path.write_text(page(large()), encoding="utf-8")
    view = View(browser, path)
    drawn = view.tab.evaluate(
        """() => [...document.querySelectorAll(".point")].map((p) =>
            [p.querySelector("title").textContent, getComputedStyle(p).color,
             p.querySelector("path").getAttribute("d").replace(/^M[^m]*/, "")])"""
    )
    assert len(drawn) == 20
    colours, markers = set(), set()
    for title, colour, marker in drawn:
        told = re.match(r"(.*)-digits, (\w+):", title)
        assert told is not None
        colours.add((told[1], colour))
        markers.add((told[2], marker))
    for pairs, count in ((colours, 10), (markers, 2)):
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert len(pairs) == count
    view.context.close()


@pytest.mark.browser
def test_the_worst_case_known_stands_beside_the_figure(
    browser: Any, tmp_path: Path
) -> None:
    fields: Any = {"worst": boards.figure(450, 1000), "worst_by": ["fast", HOSTILE]}
    rows = [boards.row("one", 900, 463, **fields), boards.row("two", 900, 462, rank=2)]
    path = tmp_path / "worst.html"
    path.write_text(page(Board(source="x", rows=rows)), encoding="utf-8")
    view = View(browser, path)
    told = view.tab.locator(".worst")
    assert told.all_inner_texts() == ["worst known 45.0"]
    assert f"here fast, {HOSTILE} beyond" in str(told.get_attribute("title"))
    assert names(view) == ["one", "two"]  # ranked by the battery's figure
    press(view, "one")
    assert "worst case known" in view.tab.inner_text("dialog[open]")
    view.tab.keyboard.press("Escape")
    press(view, "two")
    assert "worst case known" not in view.tab.inner_text("dialog[open]")


@pytest.mark.browser
def test_hostile_text_stays_text(view: View) -> None:
    view.tab.select_option("#task", TASKS[1])
    press(view, "hostile")
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


def test_the_page_is_the_same_each_time() -> None:
    assert page(board()) == page(board())


@pytest.mark.browser
def test_ten_thousand_rows(browser: Any, tmp_path: Path) -> None:
    text = page(many())
    assert len(text.encode()) < 5_000_000
    path = tmp_path / "many.html"
    path.write_text(text, encoding="utf-8")
    view = View(browser, path)
    assert view.tab.inner_text("#count") == "400 of 400 entries"
    assert view.tab.locator("tbody tr").count() < 120  # a page of them
    assert view.tab.inner_text("#page") == "1 to 100 of 400"
    for _ in range(3):
        view.tab.click("#next")
    assert view.tab.inner_text("#page") == "301 to 400 of 400"
    assert view.tab.is_disabled("#next")
    assert names(view)[-1] == "encoder-00399"
    view.tab.fill("#search", "number 399")
    assert names(view) == ["encoder-00399"]
    assert view.tab.is_hidden("#pager")
    assert view.errors == []
    view.context.close()


@pytest.mark.browser
def test_a_crowd_of_points_is_few_elements(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "crowd.html"
    path.write_text(page(many(1200, 1)), encoding="utf-8")
    view = View(browser, path)
    assert view.tab.locator(".crowd").count() == len(METHODS)
    drawn = view.tab.locator(".crowd path").all()
    assert sum(p.get_attribute("d").count("M") for p in drawn) == 1200
    view.tab.click("#methods button >> nth=0")
    assert view.tab.locator(".point").count() == 120
    view.context.close()


@pytest.mark.browser
def test_rows_come_before_the_picture_on_a_phone(browser: Any, file: Path) -> None:
    for width, first in ((390, "rows"), (1280, "figure")):
        view = View(browser, file, viewport={"width": width, "height": 800})
        tops = {
            name: view.tab.locator(f"#{name}").bounding_box()["y"]
            for name in ("rows", "figure")
        }
        assert min(tops, key=tops.__getitem__) == first
        view.context.close()


MACHADO = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
"""Colour vision, on linear RGB (Machado, Oliveira & Fernandes 2009, severity 1)."""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_told_apart_by_every_eye(
    browser: Any, file: Path, scheme: str
) -> None:
    view = View(browser, file, color_scheme=scheme)
    names = ["--paper", "--quiet", *(f"--m{at}" for at in range(12))]
    style = "getComputedStyle(document.documentElement)"
    found = [view.tab.evaluate(f"{style}.getPropertyValue('{n}')") for n in names]
    view.context.close()
    paper, *colours = (
        np.array([int(text.strip()[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        for text in found
    )

    def linear(c: FloatArray) -> FloatArray:
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)

    def luminance(c: FloatArray) -> float:
        return float(linear(c) @ [0.2126, 0.7152, 0.0722])

    def lab(rgb: FloatArray) -> FloatArray:
        """CIE 1976, D65."""
        to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722]]
        x, y, z = np.array([*to_xyz, [0.0193, 0.1192, 0.9505]]) @ rgb
        f = [
            np.cbrt(v) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116
            for v in (x / 0.95047, y, z / 1.08883)
        ]
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    for colour in colours:
        dark, light = sorted([luminance(colour), luminance(paper)])
        assert (light + 0.05) / (dark + 0.05) >= 3
    for eye, matrix in MACHADO.items():
        seen = [lab(np.clip(matrix @ linear(c), 0, 1)) for c in colours]
        for a, b in itertools.combinations(seen, 2):
            assert np.linalg.norm(a - b) > 18, eye


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(browser: Any, file: Path, width: int, scheme: str) -> None:
    assert violations(browser, file, scheme=scheme, width=width) == []
