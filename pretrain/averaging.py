"""Batch norms of averaged weights, measured anew.

The average of running statistics is not the statistics of the network with averaged
weights: they are measured by passes of the method itself, attack included, so that
they see the same mixture of clean and attacked images as in training.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pretrain.batchnorm import RUNNING
from pretrain.methods.base import Batch, Method

IMAGES = 2048
"""Training images that statistics are measured on, or all."""


def has_statistics(network: nn.Module) -> bool:
    """True if something in it keeps running statistics."""
    return any(
        isinstance(m, RUNNING) and m.track_running_stats for m in network.modules()
    )


def measure_norms(
    method: Method, averaged: nn.Module, batches: Iterable[Batch]
) -> None:
    """Gives averaged weights the batch norms of their own features.

    Args:
        method: In train mode; as it was when this returns.
        averaged: Like `method.published()`; its running statistics are replaced.
        batches: What is passed through; each costs a step without its backward pass.
    """
    network = method.published()
    saved = {key: value.clone() for key, value in method.state_dict().items()}
    norms = [m for m in network.modules() if isinstance(m, RUNNING)]
    momenta = [norm.momentum for norm in norms]
    try:
        network.load_state_dict(averaged.state_dict())
        for norm in norms:
            norm.momentum = None  # the plain mean of all batches, from the first on
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()
        with torch.no_grad():
            for batch in batches:
                method(batch)
        _copy_buffers(network, averaged)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        method.load_state_dict(saved)


def _copy_buffers(network: nn.Module, averaged: nn.Module) -> None:
    found: dict[str, Tensor] = dict(network.named_buffers())
    for name, buffer in averaged.named_buffers():
        buffer.copy_(found[name])
