"""The site: builds strictly, asks nothing of the network, and everyone can read it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accessibility import violations
from documents import ROOT

from website.generated import pages

PAGES = ("index.html", "concepts/health.html", "reference/robrep-eval.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page outside the navigation, or a link that leads nowhere, stops this."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "website", str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_commands_and_names_are_in_the_reference(site: Path) -> None:
    assert "--transfer-from" in (site / "reference/robrep-eval.html").read_text()
    assert "tarrl-digits" in (site / "reference/recipes.html").read_text()
    assert "robrep_eval.evaluate" in (site / "reference/python.html").read_text()
    assert "low" in (site / "reference/formats.html").read_text()


def test_examples_fit_the_page_and_stay_one_command_each() -> None:
    page = pages()["reference/robrep-eval.md"]
    examples = page.split("Examples:\n\n```text\n", 1)[1].split("```")[0]
    assert all(len(line) <= 82 for line in examples.splitlines())  # with " \\"
    commands = examples.replace("\\\n", "").splitlines()
    assert all(command.startswith("robrep-eval ") for command in commands)
    assert any(
        command.split()[-4:] == ["--eps", "4/255,8/255", "--output", "study"]
        for command in commands
    )


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    """Neither script nor style nor picture nor font."""
    fetched = re.compile(r"<(?:script|img|iframe|link) [^>]*(?:src|href)=.?http[^>]*>")
    for page in site.rglob("*.html"):
        found = fetched.findall(page.read_text())
        assert [tag for tag in found if "canonical" not in tag] == [], page


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Path, browser: Any, scheme: str) -> None:
    for name in PAGES:
        assert violations(browser, site / name, scheme=scheme, width=1280) == []
