"""Runs commands in one process and notes what Python's audit hook sees of each.

    python audited.py PLAN LOG

PLAN is JSON: {"roots": [...], "canary": TEXT, "cases": {NAME: [MODULE, ARGUMENT...]}}.
LOG becomes {NAME: {"code": exit code, "said": stderr, "events": [...]}}. Noted are
unpickled names, executed or compiled text that holds the canary, files opened outside
the roots and the installation, and started processes.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib
import io
import json
import os
import pickle
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM = ("/usr", "/lib", "/lib64", "/proc", "/sys", "/dev", "/etc/ssl")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
MAINS = {
    "zoo": ("zoo.commands.cli", "cli"),
    "eval": ("robrep_eval.commands.cli", "cli"),
    "pretrain": ("pretrain.cli", "command"),
}
events: list[str] = []


class Watch:
    """The hook; it notes and never raises, as an error could be swallowed."""

    def __init__(self, roots: list[str], canary: str) -> None:
        installed = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()}
        own = {str(REPOSITORY / name) for name in ("zoo", "robrep_eval", "pretrain")}
        own |= {str(REPOSITORY / "compat"), str(REPOSITORY / "tests")}
        self.roots = tuple({*roots, *installed, *own, *SYSTEM})
        self.canary = canary

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            self._opened(args[0])
        elif event == "pickle.find_class":
            events.append(f"unpickled {args[0]}.{args[1]}")
        elif event in ("exec", "compile"):
            if self._foreign(args[0]):
                events.append(f"{event} of foreign text")
        elif event in STARTS and not (self._revision(event, args) or finds_library()):
            events.append(f"started {args[0]}")

    def _opened(self, path: Any) -> None:
        if isinstance(path, int):
            return
        place = os.path.realpath(os.fsdecode(path))
        if not any(place == r or place.startswith(f"{r}/") for r in self.roots):
            events.append(f"opened {place}")

    def _foreign(self, text: Any) -> bool:
        """Whether source or code holds the canary, at any depth."""
        if isinstance(text, CodeType):
            return any(map(self._foreign, (*text.co_consts, *text.co_names)))
        if isinstance(text, bytes):
            return self.canary.encode() in text
        return isinstance(text, str) and self.canary in text

    def _revision(self, event: str, args: tuple[Any, ...]) -> bool:
        """The one process that robrep starts: git, for the revision of its source."""
        wanted = ["git", "-C", str(REPOSITORY)]
        return event == "subprocess.Popen" and list(args[1])[:3] == wanted


def finds_library() -> bool:
    """Whether Python is looking for a shared library, for which it asks the linker."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == ctypes.util.__file__:
            return True
    return False


def command(module: str, arguments: list[str]) -> None:
    """One of robrep's commands, or something that the hook must see."""
    from zoo.commands.shell import run

    if module == "offline":
        os.environ["ROBREP_OFFLINE"] = "1"
        try:
            command(arguments[0], arguments[1:])
        finally:
            del os.environ["ROBREP_OFFLINE"]
    elif module == "load":
        import zoo

        try:
            zoo.load(*arguments)
        except zoo.RobrepError as error:
            sys.exit(f"Error: {error}")
    elif module == "misdeed":
        kind, value = arguments
        MISDEEDS[kind](value)
    else:
        place, name = MAINS[module]
        sys.argv = [module, *arguments]
        entry = getattr(importlib.import_module(place), name)
        run(lambda **rest: entry(arguments, **rest), module)


MISDEEDS: dict[str, Callable[[str], object]] = {
    "unpickle": lambda path: pickle.loads(Path(path).read_bytes()),
    "execute": lambda text: exec(text),
    "open": lambda path: Path(path).read_bytes(),
    "start": lambda text: subprocess.run([sys.executable, "-c", ""], check=True),
}


def main(plan: Path, log: Path) -> None:
    content = json.loads(plan.read_text())
    found = {}
    sys.addaudithook(Watch(content["roots"], content["canary"]))
    for name, (module, *arguments) in content["cases"].items():
        events.clear()
        said, code = io.StringIO(), 0
        with (
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            try:
                command(module, arguments)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 2
                said.write(str(end.code))
            except BaseException:
                code = -1
                said.write(traceback.format_exc())
        found[name] = {"code": code, "said": said.getvalue(), "events": list(events)}
    log.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
