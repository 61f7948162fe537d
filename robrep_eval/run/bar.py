"""Progress of `evaluate` in scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from robrep_eval.run.engine import Progress


@contextmanager
def bar() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """What to call as the battery advances, and before each stage.

    They draw one bar over the images: a widget in a notebook, else text on stderr.
    """
    from tqdm.auto import tqdm

    with tqdm(unit="image", bar_format="{desc} {percentage:3.0f}%|{bar}|") as drawn:

        def advance(now: Progress) -> None:
            drawn.total = now.total
            drawn.n = now.done + now.share * (now.begun - now.done)
            drawn.set_description(now.attack or "done")

        def stage(text: str) -> None:
            drawn.set_description(text)

        yield advance, stage
