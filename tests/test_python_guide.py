"""docs/how-to/python.md names every public name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import robrep_eval
import zoo

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how-to" / "python.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", [robrep_eval, zoo])
def test_every_public_name_is_there_and_explained(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name) is not None
        if name != "__version__":
            assert re.search(rf"\b{name}\b", PAGE), name
