"""The report in a real browser: wide, on a telephone, in the dark, read aloud."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from accessibility import violations
from browsing import View
from reports import HOSTILE, copy_run, measured_run
from whole import read_whole

from robrep_eval import evaluate
from robrep_eval.report import write_overview, write_report
from zoo.classifier import Classifier

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Text whose contrast with what lies behind it is below WCAG 2's 4.5 (3 for large text).
FAINT = """() => {
  const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => {
    const [r, g, b] = c.map((v) => v / 255).map(
      (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const e = node.parentElement;
    if (!node.data.trim() || /^(title|desc)$/i.test(e.tagName)) continue;
    const style = getComputedStyle(e);
    const ink = rgb(e.tagName === "text" ? style.fill : style.color).slice(0, 3);
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const need = size >= 24 || (bold && size >= 16) ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < need) found.push([node.data.trim(), ink.join()]);
  }
  return found;
}"""

# Labels that are cut off by the edge of their drawing, or lie on one another.
CLIPPED = """() => [...document.querySelectorAll("svg.chart")].flatMap((svg) => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter((t) => {
    const b = t.getBoundingClientRect();
    return b.left < frame.left - 1 || b.right > frame.right + 1
      || b.top < frame.top - 1 || b.bottom > frame.bottom + 1;
  }).map((t) => t.textContent);
})"""
OVERLAPPING = """() => [...document.querySelectorAll("svg.chart")].flatMap((svg) => {
  const boxes = [...svg.querySelectorAll("text:not(.class)")].map(
    (t) => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([, b]) =>
    a.left < b.right - 1 && b.left < a.right - 1
    && a.top < b.bottom - 4 && b.top < a.bottom - 4).map(([other]) => [one, other]));
})"""


@pytest.fixture(scope="module")
def run(
    robust_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("page") / "run"
    evaluate(
        robust_classifier,
        dataset="digits",
        eps=0.1,
        attacks="apgd-ce,fgsm",
        limit=100,
        output=folder,
    )
    return folder


@pytest.fixture(scope="module")
def file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every section filled."""
    folder = tmp_path_factory.mktemp("full")
    return write_report(measured_run(run, folder / "run"), folder / "report.html")


def unfolded(view: View) -> View:
    """With every section open."""
    view.tab.evaluate(
        "for (const d of document.querySelectorAll('details')) d.open = 1"
    )
    return view


@pytest.fixture
def view(browser: Any, file: Path) -> Iterator[View]:
    opened = unfolded(View(browser, file, viewport={"width": 1280, "height": 900}))
    yield opened
    assert opened.errors == []
    assert opened.outside == []
    opened.context.close()


@pytest.mark.parametrize(
    ("status", "name"), [("pass", "--held"), ("warn", "--warn"), ("fail", "--fail")]
)
def test_the_figure_stands_in_the_colour_of_its_verdict(
    browser: Any, run: Path, tmp_path: Path, status: str, name: str
) -> None:
    health = read_whole(run)["measurements"]["health"]
    first, *rest = ({**flag, "status": "pass"} for flag in health["flags"])
    health = {**health, "flags": [{**first, "status": status}, *rest]}
    measured = {**read_whole(run)["measurements"], "health": health}
    made = copy_run(run, tmp_path / "run", measurements=measured)
    view = View(browser, write_report(made, tmp_path / "report.html"))
    found = view.tab.evaluate(
        """(name) => {
          const other = document.createElement("p");
          other.style.color = `var(${name})`;
          document.body.append(other);
          return [document.querySelector(".big"), other].map(
            (e) => getComputedStyle(e).color);
        }""",
        name,
    )
    assert found[0] == found[1]
    view.context.close()


def test_the_page_needs_nothing_and_complains_of_nothing(view: View) -> None:
    assert view.tab.title() == "Robustness of (classifier)"
    loaded = "[...document.images].every((i) => i.complete && i.naturalWidth > 0)"
    assert view.tab.evaluate(loaded)
    assert view.tab.locator("img").count() >= 9


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_screen(browser: Any, file: Path, width: int, scheme: str) -> None:
    view = View(
        browser, file, viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    unfolded(view)
    assert view.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert view.tab.evaluate(CLIPPED) == []
    assert view.tab.evaluate(OVERLAPPING) == []
    assert view.tab.evaluate(FAINT) == []
    small = "[...document.querySelectorAll('svg.chart text')].map((t) => "
    small += "t.getBoundingClientRect().height)"
    assert min(view.tab.evaluate(small)) >= 9 if width >= 360 else True
    assert view.errors == []
    view.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_answer_is_on_the_first_screens(
    browser: Any, file: Path, width: int
) -> None:
    """Figure, interval, verdict and limit without scrolling; the rest is folded."""
    view = View(browser, file, viewport={"width": width, "height": 900})
    assert view.tab.locator("details[open]").count() == 0
    tiles = view.tab.locator(".tiles").bounding_box()
    assert tiles["y"] + tiles["height"] <= 900
    for word in ("clean accuracy", "the evaluation", "what limits it"):
        assert word in view.tab.locator(".tiles").inner_text()
    assert view.tab.evaluate("document.documentElement.scrollHeight") < 1800
    view.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(browser: Any, file: Path, width: int, scheme: str) -> None:
    assert violations(browser, file, scheme=scheme, width=width) == []


def test_axe_finds_nothing_on_the_page_of_several_runs(
    browser: Any, run: Path, tmp_path: Path
) -> None:
    page = write_overview([run, run], tmp_path / "o.html")
    assert violations(browser, page, scheme="light", width=390) == []


def test_dark_where_the_reader_wants_it_dark(browser: Any, file: Path) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        view = View(browser, file, color_scheme=scheme)
        look = "(s) => getComputedStyle(document.querySelector(s))"
        colours[scheme] = [
            view.tab.evaluate(f"{look}.backgroundColor", "body"),
            view.tab.evaluate(f"{look}.color", "body"),
            view.tab.evaluate(f"{look}.fill", "svg rect.held"),
            view.tab.evaluate(f"{look}.fill", "svg text.label"),
        ]
        view.context.close()
    for light, dark in zip(colours["light"], colours["dark"], strict=True):
        assert light != dark


def test_headings_go_down_one_step_at_a_time(view: View) -> None:
    levels = view.tab.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert view.tab.get_attribute("html", "lang") == "en"


def test_a_screen_reader_is_told_what_the_eye_sees(view: View) -> None:
    for image in view.tab.locator("img").all():
        assert len(image.get_attribute("alt")) > 10
    names = view.tab.evaluate(
        """[...document.querySelectorAll("svg")].map((svg) => [svg.getAttribute("role"),
        ...svg.getAttribute("aria-labelledby").split(" ").map(
          (id) => document.getElementById(id).textContent)])"""
    )
    assert len(names) >= 8
    for role, title, description in names:
        assert role == "img"
        assert len(title) > 5
        assert len(description) > 20
    for table in view.tab.locator("table").all():
        assert table.locator("caption").inner_text()
        heads = table.locator("thead th")
        assert heads.count() == table.locator("thead th[scope=col]").count() > 0
        rows = table.locator("tbody tr").count()
        assert table.locator("tbody th[scope=row]").count() == rows > 0
    twice = view.tab.evaluate(
        """[...document.querySelectorAll("[id]")].map((e) => e.id)
        .filter((id, at, all) => all.indexOf(id) !== at)"""
    )
    assert twice == []


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("attacks", ["accuracy, %"]),
        ("bracket", ["robust accuracy, %"]),
        ("eps", ["eps, Linf", "accuracy, %"]),
        ("displacement", ["displacement / median distance of two images", "images"]),
        ("map", ["1st principal direction", "2nd principal direction"]),
        ("bound", ["mean cross-entropy, nats"]),
        ("limits", ["images"]),
    ],
)
def test_axes_say_what_they_measure(view: View, key: str, names: list[str]) -> None:
    found = view.tab.evaluate(
        """(key) => [...document.getElementById(key + "-title").closest("svg")
        .querySelectorAll("text.axis")].map((t) => t.textContent)""",
        key,
    )
    assert len(found) == len(names)
    for name in names:
        assert any(text.startswith(name) for text in found)


def test_the_keyboard_reaches_sections_and_wide_tables(view: View) -> None:
    view.tab.keyboard.press("Tab")
    assert view.tab.evaluate("document.activeElement.className") == "skip"
    assert view.tab.locator(".skip").bounding_box()["x"] >= 0
    view.tab.keyboard.press("Tab")
    assert view.tab.evaluate("document.activeElement.tagName") == "SUMMARY"
    view.tab.keyboard.press("Enter")
    assert view.tab.evaluate("document.querySelector('details').open") is False
    assert view.tab.locator("summary h2").count() == view.tab.locator("details").count()
    for region in view.tab.locator(".wide").all():
        assert region.get_attribute("tabindex") == "0"
        assert region.get_attribute("aria-label")


def test_pixels_stay_pixels(view: View) -> None:
    style = "getComputedStyle(document.querySelector('.three img')).imageRendering"
    assert view.tab.evaluate(style) == "pixelated"


def test_hostile_text_does_nothing(browser: Any, run: Path, tmp_path: Path) -> None:
    record = read_whole(run)
    copy = copy_run(
        run,
        tmp_path / "run",
        model={**record["model"], "reference": HOSTILE},
        notes=[HOSTILE],
        battery=HOSTILE,
    )
    view = View(
        browser,
        write_report(copy, tmp_path / "r.html"),
        viewport={"width": 360, "height": 800},
    )
    assert view.tab.title() == f"Robustness of {HOSTILE}"
    assert view.tab.evaluate("typeof window.owned") == "undefined"
    assert view.tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert view.errors == []
    assert view.outside == []
    view.tab.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.owned = 1";
          document.body.append(script);
        }"""
    )
    assert view.tab.evaluate("typeof window.owned") == "undefined"
    assert "Content Security Policy" in view.errors[0]
    view.context.close()


@pytest.mark.slow
def test_a_page_with_gaps_is_a_page_too(
    browser: Any, run: Path, tmp_path: Path
) -> None:
    copy = copy_run(run, tmp_path / "run", measurements={})
    (copy / "classifier.safetensors").unlink()
    view = View(
        browser,
        write_report(copy, tmp_path / "r.html"),
        viewport={"width": 360, "height": 800},
    )
    assert "Parts of this page are missing" in view.tab.inner_text(".notice")
    assert view.tab.locator("img").count() > 0  # pictures need no classifier
    assert view.tab.evaluate(CLIPPED) == []
    assert view.tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert view.errors == []
    view.context.close()
