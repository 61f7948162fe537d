"""What all commands share: errors as one line, exit codes, a default verb."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import rich_click as click

from zoo.errors import Notice, RobrepError
from zoo.plain_text import plain_line
from zoo.threads import wait_asleep


class DefaultGroup(click.RichGroup):
    """A group whose `default` command runs when no verb is named.

    So `robrep-eval --model X` means `robrep-eval run --model X`.
    """

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for param in self.params for name in param.opts}
        own |= {"--help", "-h"}
        if not args or (args[0] not in self.commands and args[0] not in own):
            if args and not args[0].startswith("-"):
                return super().parse_args(ctx, args)  # a mistyped verb: say so
            args = [self.default, *args] if args else ["--help"]
        return super().parse_args(ctx, args)


def run(command: Callable[..., Any], name: str) -> None:
    """Runs a click command; prints what people can mend as one line, no traceback.

    Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.
    """
    wait_asleep()
    _show_notices()
    for kind in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", kind)  # of libraries, for their developers
    warnings.filterwarnings("ignore", "pkg_resources is deprecated")
    try:
        with _one_interrupt():
            code = command(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RobrepError as error:
        sys.exit(_fail(str(error), error.exit_code))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_fail("interrupted; the same command again goes on from here", 130))
    except OSError as error:
        sys.exit(_fail(_describe(error), 1))
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """The first Ctrl-C interrupts; further ones are ignored, and so is the first
    where Ctrl-C was ignored before (nohup)."""

    def interrupt(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)


def _show_notices() -> None:
    """One line for what robrep warns of; other warnings as they are."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, Notice):
            click.echo(f"Warning: {plain_line(str(message))}", err=True)
        else:
            others(message, category, *place)

    warnings.showwarning = show  # type: ignore[assignment]
    warnings.simplefilter("always", Notice)


def _describe(error: OSError) -> str:
    """A full disk or a folder without permission, with its path."""
    place = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{place}"


def _fail(message: str, code: int) -> int:
    click.echo(f"Error: {plain_line(message)}", err=True)
    return code
