"""Stopwatches: of a block, of a model's passes within it, of bare passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from robrep_eval.attacks.problem import Model, physical_batch


@contextmanager
def stopwatch(into: dict[str, float], name: str) -> Iterator[None]:
    """Adds the seconds of the block to `into[name]`: CPU's of one thread, else wall."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    yield
    into[name] = into.get(name, 0.0) + clock() - began


@contextmanager
def passes_timed(model: Model, into: dict[str, float]) -> Iterator[None]:
    """Adds up what the passes of `model` take, with the losses they differentiate."""

    def timed(name: str) -> Callable[..., Any]:
        bare = getattr(model, name)

        def call(*arguments: Any) -> Any:
            with stopwatch(into, "passes"):
                return bare(*arguments)

        return call

    names = ("logits", "gradient", "jacobian")
    for name in names:
        setattr(model, name, timed(name))
    yield
    for name in names:
        delattr(model, name)


def bare_cost(
    model: Model, x: Tensor, batch_size: int, repeats: int = 10
) -> tuple[float, float]:
    """Seconds per row of a forward pass, and of one with backward, in full batches."""
    size = physical_batch(x, batch_size)
    batch = x.repeat(-(-size // len(x)), 1, 1, 1)[:size]
    spent: dict[str, float] = {}
    for _ in range(repeats):
        with stopwatch(spent, "f"):
            model.logits(batch)
        with stopwatch(spent, "b"):
            model.gradient(batch, lambda logits: logits.sum(dim=1))
    forward, both = (spent[k] / repeats / len(batch) for k in "fb")
    return forward, both
