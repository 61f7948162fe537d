"""axe-core on a page in a real browser."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from browsing import View

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


def axe() -> str:
    """The script, as the package axe-playwright-python carries it; skips without."""
    package = pytest.importorskip("axe_playwright_python")
    return files(package).joinpath("axe.min.js").read_text(encoding="utf-8")


def violations(
    browser: Any, file: Path, *, scheme: str, width: int, press: str | None = None
) -> list[str]:
    """What axe-core objects to, one line for each rule and the first element.

    Args:
        browser: Of `browsing.browser`.
        file: The page.
        scheme: "light" or "dark".
        width: Of the window, in pixels.
        press: What to press first, if anything.
    """
    script = axe()
    size = {"width": width, "height": 900}
    view = View(browser, file, viewport=size, color_scheme=scheme, bypass_csp=True)
    if press:
        view.tab.click(press)
    view.tab.evaluate(
        "document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    view.tab.evaluate(script)
    found = view.tab.evaluate(
        "tags => axe.run({runOnly: {type: 'tag', values: tags}})", RULES
    )
    view.context.close()
    assert found["passes"], "axe-core looked at nothing"
    return [
        f"{rule['id']} ({rule['help']}), {len(rule['nodes'])} times: "
        f"{rule['nodes'][0]['html'][:200]} {rule['nodes'][0]['failureSummary'][:200]}"
        for rule in found["violations"]
    ]
