"""Thousands of malformed inputs: each gives one clear error or a value, never more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("child.py")


def fuzz(count: int, seed: int, folder: Path) -> dict[str, dict[str, int]]:
    """Runs the child; its table of reader x outcome."""
    done = subprocess.run(
        [sys.executable, str(CHILD), str(count), str(seed), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return table


def check(table: dict[str, dict[str, int]], count: int) -> None:
    """All inputs were tried, many were refused, and none did anything else."""
    assert sum(sum(row.values()) for row in table.values()) == count
    for reader, row in table.items():
        assert row["refused"] > 0, reader


def test_two_thousand_inputs(tmp_path: Path) -> None:
    check(fuzz(2000, 1, tmp_path), 2000)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 12))
def test_twenty_thousand_inputs(tmp_path: Path, seed: int) -> None:
    check(fuzz(2000, seed, tmp_path), 2000)


def test_the_child_would_see_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(CHILD), "1", "1", str(tmp_path), "broken"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "TypeError" in done.stderr
