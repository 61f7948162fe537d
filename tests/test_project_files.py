"""Files that hosts and other programs read: citation, issue forms, version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import zoo

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_citation_has_what_the_format_requires() -> None:
    """Keys of the Citation File Format 1.2.0, and this very version."""
    cited = read(ROOT / "CITATION.cff")
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys()
    assert cited["version"] == zoo.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", cited["date-released"])
    for work in (cited, *cited["references"]):
        assert work["type"] in ("software", "dataset", "article")
        for author in work["authors"]:
            assert author.keys() <= {"name", "family-names", "given-names"}


def test_the_changelog_has_this_version_on_top() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text, re.M)
    assert versions[0] == zoo.__version__
    assert versions == sorted(versions, reverse=True)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_are_forms(path: Path) -> None:
    form = read(path)
    if path.name == "config.yml":
        assert form["blank_issues_enabled"] in (True, False)
        return
    assert {"name", "description", "body"} <= form.keys()
    kinds = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    names = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(names)) == len(names)
    for part in form["body"]:
        assert part["type"] in kinds
        needed = "value" if part["type"] == "markdown" else "label"
        assert part["attributes"][needed]
