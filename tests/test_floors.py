"""The plan of the house: imports go down only, and in no circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import zoo

ROOT = Path(zoo.__file__).parents[1]
FLOORS = ("zoo", "robrep_eval", "pretrain")
"""From the ground up."""
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    ): path
    for floor in FLOORS
    for path in (ROOT / floor).rglob("*.py")
}


def _imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, inside its functions too."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            whole = {f"{node.module}.{name.name}" for name in node.names}
            named |= {name if name in MODULES else str(node.module) for name in whole}
    return named & MODULES.keys()


IMPORTS = {name: _imported(path) - {name} for name, path in MODULES.items()}


def test_the_walk_sees_the_house() -> None:
    assert "zoo.ball" in IMPORTS["zoo.evidence"]
    assert "zoo.encoder" in IMPORTS["pretrain.stable"]
    assert len(IMPORTS) > 150


def test_no_import_runs_up() -> None:
    up = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if FLOORS.index(other.split(".")[0]) > FLOORS.index(name.split(".")[0])
    ]
    assert up == []


def test_no_circle() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None
