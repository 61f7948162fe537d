"""How a run shows itself: a live bar on a terminal, plain lines elsewhere; stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from zoo.plain_text import plain

PLAIN_SECONDS = 10.0
"""Between lines where there is no terminal."""


class Reporter(Protocol):
    """What the loop tells the outside."""

    def say(self, text: str) -> None:
        """A remark."""

    def begin(self, title: str, steps: int, done: int) -> None:
        """A run of `steps` steps, of which `done` lie behind."""

    def step(self, done: int, text: str) -> None:
        """`done` steps lie behind; `text` has speed and loss parts."""


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def begin(self, title: str, steps: int, done: int) -> None:
        """Nothing."""

    def step(self, done: int, text: str) -> None:
        """Nothing."""


class Lines:
    """Plain lines, one every few seconds: for logs and pipes."""

    def __init__(self) -> None:
        self.title, self.steps, self.first = "", 0, 0
        self.began = self.last = time.monotonic()

    def say(self, text: str) -> None:
        """One line."""
        print(plain(text), file=sys.stderr, flush=True)

    def begin(self, title: str, steps: int, done: int) -> None:
        """Starts the clock."""
        self.title, self.steps, self.first = title, steps, done
        self.began = self.last = time.monotonic()

    def step(self, done: int, text: str) -> None:
        """A line if the last one is old enough, or at the end."""
        now = time.monotonic()
        if now - self.last < PLAIN_SECONDS and done < self.steps:
            return
        self.last = now
        rate = (now - self.began) / max(1, done - self.first)
        left = rate * (self.steps - done)
        share = 100 * done / self.steps
        self.say(f"{self.title} {share:.0f}%, {left:.0f} s left, {text}")


class Live:
    """One live bar; use as a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=self.console,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(plain(text), highlight=False, markup=False)

    def begin(self, title: str, steps: int, done: int) -> None:
        """A new bar."""
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(title, total=steps, completed=done, text="")

    def step(self, done: int, text: str) -> None:
        """Moves the bar."""
        if self.task is not None:
            self.bar.update(self.task, completed=done, text=text)
