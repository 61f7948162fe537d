"""Activations that are computed a second time instead of kept, block by block.

A block gives the same the second time: it finds the batch norms, modes and draws that
it had the first time, and no running statistics move. It costs one more forward pass
for each backward pass, in attacks too.

Source: Chen et al. 2016, arXiv 1604.06174; torch.utils.checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pretrain.batchnorm import RUNNING, BatchNormSets
from pretrain.methods.base import Method
from pretrain.recipe import Recipe
from zoo.errors import UserError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""What libraries hold the blocks of a network in."""


def found_blocks(method: Method, recipe: Recipe) -> list[nn.Module]:
    """Those that the recipe wants computed again: of encoder and average, or none.

    Raises:
        UserError: the encoder has none.
    """
    if not recipe.checkpoint_activations:
        return []
    networks = (method.encoder, method.published())
    if found := dict.fromkeys(part for network in networks for part in blocks(network)):
        return list(found)
    raise UserError(
        f"checkpoint_activations found no blocks in arch '{recipe.arch}'; leave it out"
    )


def blocks(network: nn.Module) -> list[nn.Module]:
    """The repeated parts of a network, such as residual blocks or transformer layers.

    Those in containers that have several layers with weights, the innermost ones.
    """
    return list(dict.fromkeys(_blocks(network)))


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    inside = isinstance(network, CONTAINERS) and not isinstance(network, BatchNormSets)
    for child in network.children():
        if isinstance(child, BatchNormSets):
            continue
        deeper = list(_blocks(child))
        if deeper:
            yield from deeper
        elif inside and not isinstance(child, CONTAINERS) and _layers(child) > 1:
            yield child


def _layers(module: nn.Module) -> int:
    """Modules in it that have weights of their own."""
    return sum(any(True for _ in m.parameters(False)) for m in module.modules())


@contextmanager
def checkpointed(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the forward passes of `parts` keep their inputs alone."""
    before = [part.__dict__.get("forward") for part in parts]
    try:
        for part in parts:
            part.__dict__["forward"] = partial(_forward, part, part.forward)
        yield
    finally:
        for part, own in zip(parts, before, strict=True):
            if own is None:
                del part.__dict__["forward"]
            else:
                part.__dict__["forward"] = own


def _forward(
    part: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any
) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    return checkpoint(
        forward,
        *inputs,
        use_reentrant=False,
        context_fn=partial(_contexts, _State(part)),
        **named,
    )


def _contexts(
    state: _State,
) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), state.again()


class _State:
    """What decides the output of a block beside inputs and weights, as it is now."""

    def __init__(self, part: nn.Module) -> None:
        modules = list(part.modules())
        self.values: list[tuple[nn.Module, str, Any]] = [
            (m, "training", m.training) for m in modules
        ]
        for m in modules:
            if isinstance(m, BatchNormSets):
                self.values.append((m, "using", m.using))
            if isinstance(m, RUNNING):  # its running statistics moved the first time
                self.values += [(m, "momentum", 0.0), (m, "num_batches_tracked", None)]

    @contextmanager
    def again(self) -> Iterator[None]:
        """As it was, inside."""
        before = [(m, name, m.__dict__.get(name, _NONE)) for m, name, _ in self.values]
        try:
            for module, name, value in self.values:
                # Past the module, whose own assignment is slow; a buffer is hidden so.
                module.__dict__[name] = value
            yield
        finally:
            for module, name, old in before:
                if old is _NONE:
                    del module.__dict__[name]
                else:
                    module.__dict__[name] = old


_NONE = object()
