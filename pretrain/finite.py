"""Which layer of a network first gives values that are not finite."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robrep_eval.attacks.pgd import frozen


def first_broken(network: nn.Module, x: Tensor) -> str | None:
    """Name of the first layer, in the order of the pass, that gives NaN or infinity.

    Args:
        network: Its modes and weights stay as they are.
        x: Images (N, C, H, W); the pass is in eval mode and in the caller's precision.
    """
    found: list[str] = []

    def note(name: str, _: nn.Module, __: Any, out: Any) -> None:
        if isinstance(out, Tensor) and not bool(out.isfinite().all()):
            found.append(name)

    hooks = [
        module.register_forward_hook(partial(note, name))
        for name, module in network.named_modules()
        if not any(module.children())
    ]
    try:
        with torch.no_grad(), frozen(network):
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
