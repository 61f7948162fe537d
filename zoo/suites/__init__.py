"""The suites that come with robrep, by name. Imports no torch."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
