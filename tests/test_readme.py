"""The Python in README.md runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=lambda text: text.splitlines()[-1])
def test_a_block_runs(block: str, tmp_path: Path) -> None:
    """In a process of its own, in an empty folder."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", block],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr


def test_there_are_blocks() -> None:
    """And the names they import are there."""
    assert len(BLOCKS) >= 2
    for block in BLOCKS:
        imports = [x for x in block.splitlines() if re.match(r"(from|import) ", x)]
        assert imports
        exec("\n".join(imports), {})
