"""Whom to tell how far an evaluation is, or a bar that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from robrep_eval.run.bar import bar
from robrep_eval.run.engine import Progress


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Whom to tell how far an evaluation is."""

    progress: Callable[[Progress], None] = lambda _: None
    """As the battery advances."""
    stage: Callable[[str], None] = lambda _: None
    """One line before each stage."""
    working: Callable[[float], None] = lambda _: None
    """Share of a long fit or measurement that is done."""
    saved: Callable[[str], None] = lambda _: None
    """One line for each place where something to read was written."""


@contextmanager
def showing(
    progress: bool,
    on_progress: Callable[[Progress], None],
    on_stage: Callable[[str], None],
    on_work: Callable[[float], None],
) -> Iterator[Callbacks]:
    """The callbacks, or a bar in place of them."""
    if not progress:
        yield Callbacks(
            progress=on_progress, stage=on_stage, working=on_work, saved=on_stage
        )
        return
    with bar() as (on_progress, on_stage):
        yield Callbacks(
            progress=on_progress, stage=on_stage, working=on_work, saved=on_stage
        )
