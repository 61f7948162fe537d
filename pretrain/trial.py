"""What a step costs on this machine, before the first one: a few, thrown away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from pretrain.methods.base import Batch
from pretrain.precision import precision
from pretrain.randomness import generator

if TYPE_CHECKING:
    from pretrain.session import Session

FEW = 8
"""Images of the first look; a whole batch follows if it will not take long."""
LONG = 5.0
"""Seconds."""


def seconds_per_step(session: Session) -> float:
    """Measured on the first batch, forward and backward; nothing of it remains.

    On a slow machine a step of 8 images is measured and scaled, which on a GPU says too
    much, and on a CPU about the same.
    """
    method, batch = session.method, session.recipe.batch
    saved = {key: value.clone() for key, value in method.state_dict().items()}
    x, y = next(session.batches.epoch(0))
    modes = method.training
    try:
        method.train()
        with torch.random.fork_rng():
            few = min(FEW, batch)
            _timed(session, x[:few], y[:few])  # the first of all warms up
            seconds = _timed(session, x[:few], y[:few]) * batch / few
            if few < batch and seconds < LONG:
                seconds = _timed(session, x, y)
    finally:
        method.zero_grad(set_to_none=True)
        method.load_state_dict(saved)
        method.train(modes)
    return seconds


def _timed(session: Session, x: torch.Tensor, y: torch.Tensor) -> float:
    batch = Batch(x=x, y=y, generator=generator(session.recipe.seed, "step", 0, 0))
    _wait(session.device)
    began = time.perf_counter()
    with precision(session.recipe, session.device):
        parts = session.method(batch)
    torch.stack(list(parts.values())).sum().backward()
    _wait(session.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
