"""What a step costs on this machine, before the first one: a few, thrown away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from pretrain.data import Rows

if TYPE_CHECKING:
    from pretrain.session import Session

FEW = 8
"""Images of the first look; a whole batch follows if it will not take long."""
LONG = 5.0
"""Seconds."""


def seconds_per_step(session: Session) -> float:
    """Measured on the first batch, forward and backward; nothing of it remains.

    On a slow machine a step of 8 images is measured and scaled, which on a GPU says too
    much, and on a CPU about the same. A compiled network is compiled anew for another
    number of images, so there it is measured on all that pass at once.
    """
    method, batch = session.method, session.recipe.batch
    saved = {key: value.clone() for key, value in method.state_dict().items()}
    rows = next(session.batches.epoch(0)).split(session.recipe.accumulate)[0]
    modes = method.training
    try:
        method.train()
        with torch.random.fork_rng():
            if session.recipe.compile:
                few = rows
                _timed(session, few)  # compiles; some graphs are made in the next step
            else:
                few = Rows(*(values[:FEW] for values in rows))
            _timed(session, few)  # the first of all warms up
            seconds = _timed(session, few) * batch / len(few.x)
            if len(few.x) < batch and seconds < LONG:
                seconds = _timed(session, rows) * session.recipe.accumulate
    finally:
        method.zero_grad(set_to_none=True)
        method.load_state_dict(saved)
        method.train(modes)
    return seconds


def _timed(session: Session, rows: Rows) -> float:
    _wait(session.device)
    began = time.perf_counter()
    parts = session.losses(rows, 0)
    torch.stack(list(parts.values())).sum().backward()
    _wait(session.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
