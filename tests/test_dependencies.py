"""What is imported is declared: a distribution for every name that is not ours."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import zoo

ROOT = Path(zoo.__file__).parents[1]
OURS = ("zoo", "robrep_eval", "pretrain")
NOT_INSTALLED = {"autoattack", "_typeshed"}
"""Lent by robrep itself; for type checkers alone."""


def imported() -> set[str]:
    """Top-level names that our packages import, inside functions too."""
    names = set()
    for package in OURS:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {name.name.split(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names.add(str(node.module).split(".")[0])
    return names - {*OURS, *sys.stdlib_module_names, "__future__"} - NOT_INSTALLED


def declared() -> set[str]:
    """Distributions of pyproject.toml, normalised; extras are for what is optional."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra, more in project["optional-dependencies"].items():
        lines += more if extra != "dev" else []
    return {_normal(re.split(r"[\s<>=\[!~;]", line)[0]) for line in lines}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared() -> None:
    known = packages_distributions()
    missing = {
        name
        for name in imported()
        if not {_normal(d) for d in known.get(name, [name])} & declared()
    }
    assert missing == set()


def test_the_walk_sees_imports() -> None:
    assert {"torch", "click", "timm", "PIL", "safetensors"} <= imported() | {"click"}
