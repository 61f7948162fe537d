"""Commands in real processes, watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep

import click
from click.testing import CliRunner

from zoo.errors import UserError


def start(*words: str, umask: int = -1, **more: str) -> subprocess.Popen[str]:
    """`python -m WORDS` with the environment of the tests and `more`."""
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        env={**os.environ, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        umask=umask,
        preexec_fn=_hear_interrupts,
    )


def _hear_interrupts() -> None:
    """Also where the tests run in the background, whose children ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate()
    return process.returncode, out, err


def run(*words: str, umask: int = -1, **more: str) -> tuple[int, str, str]:
    """The same, from beginning to end."""
    return finish(start(*words, umask=umask, **more))


def refusal(command: click.Command, *words: str) -> str:
    """Why the command, run in this process, refuses its words; one line."""
    found = CliRunner().invoke(command, words)
    assert isinstance(found.exception, UserError), (found.exception, found.output)
    (line,) = str(found.exception).splitlines()
    return line


def until(holds: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Waits for something that the process does; fails if it ends without."""
    while not holds():
        assert process.poll() is None, process.communicate()[1]
        sleep(0.01)


def modes(folder: Path) -> set[int]:
    """Permissions of all files below a folder."""
    return {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
