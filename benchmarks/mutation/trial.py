"""Tests in a fork of a process that has imported what is slow to import."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hypothesis  # noqa: F401 - forks have it
import numpy  # noqa: F401 - forks have it
import pydantic  # noqa: F401 - forks have it
import pytest
import scipy.stats  # noqa: F401 - forks have it
import torch  # noqa: F401 - forks have it

TOO_LONG = -1
"""In place of an exit status."""
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0")


def run(tree: Path, tests: Sequence[str], limit: float) -> int:
    """Exit status of pytest on some files of a tree; 0: all pass.

    Args:
        tree: A copy of the repository, whose packages are imported.
        tests: Paths in it.
        limit: Seconds after which the tests are stopped.
    """
    child = os.fork()
    if child == 0:
        _tests(tree, tests)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return TOO_LONG


def _tests(tree: Path, tests: Sequence[str]) -> None:
    """In the child; does not return."""
    status = 1
    try:
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(silence, stream)
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        sys.dont_write_bytecode = True  # a change may fit the time and size of a cache
        os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        status = int(pytest.main([*OPTIONS, *tests]))
    finally:
        os._exit(status)
