"""A virtual environment with what RobustBench asks for and nothing of robrep."""

from __future__ import annotations

import os
import subprocess
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def build(root: Path, *requirements: str) -> Path:
    """An environment as `pip install` of these would make it; returns its Python.

    Every installed distribution that they need, directly or not, is linked from the
    environment that runs the tests; nothing else is there, and nothing is downloaded.
    """
    venv.EnvBuilder(symlinks=True).create(root)
    python = root / "bin" / "python"
    asked = [str(python), "-c", "import site; print(site.getsitepackages()[0])"]
    packages = Path(subprocess.check_output(asked, text=True).strip())
    for found in _closure(list(requirements)).values():
        for name in _top_level(found):
            if not (packages / name).exists():
                (packages / name).symlink_to(Path(str(found.locate_file(name))))
    return python


def environment() -> dict[str, str]:
    """The variables of this process without those that lead Python elsewhere."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


def _closure(requirements: list[str]) -> dict[str, Distribution]:
    """Distributions by name, with all that they require in turn, without extras."""
    found: dict[str, Distribution] = {}
    while requirements:
        wanted = Requirement(requirements.pop())
        if wanted.name in found or (
            wanted.marker and not wanted.marker.evaluate({"extra": ""})
        ):
            continue
        found[wanted.name] = distribution(wanted.name)
        requirements += found[wanted.name].requires or []
    return found


def _top_level(found: Distribution) -> set[str]:
    """Packages, modules and metadata of a distribution, beside one another."""
    tops = {path.parts[0] for path in found.files or ()}
    return tops - {"..", "__pycache__"}
