"""The import name `autoattack`, lent to pyautoattack where nothing else has it.

robustbench's published wheel imports `autoattack` but depends on `pyautoattack`: the
same attacks under another name, so after a plain install `import robustbench` fails.
AutoAttack's own repository is on no package index, and a package of ours under that
name would overwrite it. So the name exists at run time only: `import zoo` appends a
finder that Python asks last, after every real package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

NAME = "autoattack"
OWN = (NAME, f"{NAME}.autoattack")
"""Modules in which the authors' code defines the class `AutoAttack`."""


class StandIn(MetaPathFinder, Loader):
    """Answers for `autoattack` and its modules; asks for torch only when imported."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The stand-in's module, or None for names that are none of ours."""
        if fullname == NAME:
            there = find_spec(f"py{NAME}") is not None
            return self._spec(fullname, is_package=True) if there else None
        if not fullname.startswith(f"{NAME}.") or not self._stands_in():
            return None
        found = fullname in OWN or find_spec(f"py{fullname}") is not None
        return self._spec(fullname) if found else None

    def _stands_in(self) -> bool:
        spec = getattr(sys.modules.get(NAME), "__spec__", None)
        return spec is not None and isinstance(spec.loader, StandIn)

    def _spec(self, fullname: str, *, is_package: bool = False) -> ModuleSpec:
        return ModuleSpec(
            fullname, self, origin="pyautoattack, by robrep", is_package=is_package
        )

    def exec_module(self, module: ModuleType) -> None:
        """Fills the module: the class with its authors' signatures, or the contents of
        pyautoattack's module of the same name."""
        if module.__name__ in OWN:
            from zoo.autoattack.stand_in import AutoAttack

            contents = {"AutoAttack": AutoAttack}
        else:
            real = vars(importlib.import_module(f"py{module.__name__}"))
            contents = {k: v for k, v in real.items() if not k.startswith("__")}
        module.__dict__.update(contents)


def provide() -> None:
    """Makes `import autoattack` work; a real one keeps the name."""
    if not any(isinstance(finder, StandIn) for finder in sys.meta_path):
        sys.meta_path.append(StandIn())
