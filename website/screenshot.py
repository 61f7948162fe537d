"""Pictures of robrep's own pages: `python -m website.screenshot` takes them anew.

Needs playwright and a Chromium (CHROMIUM, or the one on PATH).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "docs" / "assets"


def leaderboard(folder: Path) -> Path:
    """The page of the embedded entries, in `folder`."""
    page = folder / "leaderboard.html"
    command = ["-m", "zoo", "leaderboard", "--source", "embedded", "--html", str(page)]
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT)
    return page


def take(page: Path, picture: Path) -> None:
    """A picture of the top of a page, as a person sees it first."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        tab = browser.new_page(
            viewport={"width": 1100, "height": 1180}, color_scheme="light"
        )
        tab.goto(page.as_uri())
        tab.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        take(leaderboard(Path(temporary)), ASSETS / "leaderboard.png")
