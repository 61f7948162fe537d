"""docs/how-to/python.md runs as it stands, and names every public name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import robrep_eval
import zoo

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how-to" / "python.md").read_text(encoding="utf-8")


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/how-to/python.md", "exec"), names)


@pytest.mark.parametrize("package", [robrep_eval, zoo])
def test_every_public_name_is_there_and_explained(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        assert getattr(package, name) is not None
        if name != "__version__":
            assert re.search(rf"\b{name}\b", PAGE), name
