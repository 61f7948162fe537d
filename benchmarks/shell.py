"""How a benchmark that people run says what was wrong: a line and an exit code."""

from __future__ import annotations

from collections.abc import Callable

from zoo.commands.shell import run


def guarded(main: Callable[[], None], name: str) -> None:
    """Runs it as robrep's commands are run: errors as one line, no traceback."""

    def command(**_: object) -> None:
        main()

    run(command, name)
