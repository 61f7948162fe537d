"""How many features a network gives, by a pass: what it states need not be true."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo import budgets
from zoo.errors import UserError


def measured_width(network: nn.Module, shape: tuple[int, int, int], name: str) -> int:
    """Number of features of one image; weights and random states stay as they are.

    The pass is one without arithmetic where the network allows that.

    Args:
        network: Maps images (N, *shape) to features.
        shape: (C, H, W).
        name: Of the network, for messages.

    Raises:
        UserError: it cannot take such images, or does not give features (N, d).
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            z = _pass(network, shape)
    except budgets.BudgetError:
        raise
    except Exception as error:  # other people's code: it may raise anything
        raise UserError(
            f"{name} cannot take images of shape {shape}: "
            f"{budgets.plain_reason(error).rstrip('.')}; a dataset's name brings its "
            "images to another, NAME@CxHxW"
        ) from None
    finally:
        network.train(was_training)
    if not isinstance(z, Tensor) or z.ndim != 2:
        given = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise UserError(f"{name} gives {given}, not features (N, d)")
    return int(z.shape[1])


def _pass(network: nn.Module, shape: tuple[int, int, int]) -> object:
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    ghosts = {name: value.to("meta") for name, value in state.items()}
    try:
        return functional_call(network, ghosts, torch.empty(1, *shape, device="meta"))
    except (NotImplementedError, RuntimeError):
        # Arithmetic that depends on values, or tensors that are no part of the state.
        budgets.check_activations(network, shape)
        return network(torch.zeros(1, *shape))
