"""Weights, gradients and optimiser shared out over processes: FSDP2.

Each process holds a part of every tensor, and gathers a block of the encoder when it
comes to it, in the passes of attacks too. Every network of a method is a unit of its
own, so that the method has no weights beside them: a backward pass of an attack lets go
of all that is gathered, and the forward pass around it would miss them.

What is written, and looked at, are whole networks, which the leading process has as a
plain copy. So files are those of DDP and of one process.

Source: Zhao et al. 2023, arXiv 2304.11277; torch.distributed.fsdp.fully_shard.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pretrain import distributed
from pretrain.averaging import has_statistics
from pretrain.checkpointing import blocks
from pretrain.methods.base import Method
from pretrain.recipe import Recipe
from zoo.errors import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def check_sharding(method: Method, recipe: Recipe) -> None:
    """Raises `UserError` for what cannot be shared out, in one process too."""
    if recipe.sharding == "none":
        return
    kept = {method.teacher} | ({method.encoder} if recipe.norms == "frozen" else set())
    moved = [child for child in method.children() if child not in kept]
    reasons = {
        f"method {recipe.method}, for which it was not tested": not method.shares,
        "batch statistics, of which each process would have its own: take an arch "
        "without, or norms: frozen, and a method without projector": any(
            _has_moving_statistics(network, kept) for network in moved
        ),
        "optimizer.name 'lars', whose rates are of whole tensors; take sgd or adamw": (
            recipe.optimizer.name == "lars"
        ),
        "compile": recipe.compile,
    }
    if found := next((text for text, holds in reasons.items() if holds), None):
        raise UserError(f"sharding: fsdp cannot be had with {found}")


def _has_moving_statistics(network: nn.Module, kept: set[nn.Module | None]) -> bool:
    """In it, but for what it shares with networks whose statistics stay."""
    if network in kept:
        return False
    if any(part in kept for part in network.children()):
        return any(_has_moving_statistics(part, kept) for part in network.children())
    return has_statistics(network)


class Whole:
    """The networks of a run as plain ones, in the leading process.

    Args:
        method: Before it is shared out.
        average: Of its published network, or None; likewise.
        leads: Whether this process is to have them.
    """

    def __init__(self, method: Method, average: Any, *, leads: bool) -> None:
        self.method = copy.deepcopy(method) if leads else None
        own = None if average is None else average.module
        self.average: nn.Module | None = copy.deepcopy(own) if leads else None
        self.optimizer: dict[str, Any] = {}

    def gather(
        self, method: Method, average: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        """As the shares are now; every process calls it at the same time."""
        with distributed.meeting():
            self._take(self.method, method)
            if average is not None:
                self._take(self.average, average.module)
            state = _whole(optimizer.state_dict())
        self.optimizer = state if self.method is not None else {}

    @staticmethod
    def _take(plain: nn.Module | None, shared: nn.Module) -> None:
        state = _whole(shared.state_dict())
        if plain is not None:
            plain.load_state_dict(state)
            plain.train(shared.training)


def shard(method: Method, average: Any, device: torch.device) -> nn.Module:
    """Shares out a method in place, and the average of its published network."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # FSDP takes no tensors in channels_last.
    method.to(memory_format=torch.contiguous_format)
    if average is not None:
        average.module.to(memory_format=torch.contiguous_format)
    with distributed.meeting():
        mesh = init_device_mesh(device.type, (distributed.world(),))
        for unit in _units(method):
            fully_shard(unit, mesh=mesh)
        if average is not None:
            fully_shard(average.module, mesh=mesh)
    return method


def _units(method: Method) -> list[nn.Module]:
    """Blocks, then the networks that hold them, then the method; each once, although
    one network may be a part of another."""
    children: list[nn.Module] = []
    for child in method.children():
        children += child if isinstance(child, nn.ModuleList) else [child]
    networks = [m for m in children if any(True for _ in m.parameters())]
    networks.sort(key=lambda m: sum(1 for _ in m.modules()))
    inner = [block for network in networks for block in blocks(network)]
    return list(dict.fromkeys([*inner, *networks, method]))


def load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Takes up whole tensors, of which this process keeps its share."""
    own = module.state_dict()
    found = {name: _like(own.get(name), value) for name, value in state.items()}
    module.load_state_dict(found)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """The same for what an optimiser keeps beside weights."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    kept = {
        number: {
            name: _like(weights[number], value)
            if isinstance(value, Tensor) and value.shape == weights[number].shape
            else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": kept})


def is_finite(value: Tensor) -> bool:
    """Of all its numbers, in whatever process they lie."""
    from torch.distributed.tensor import DTensor

    if not isinstance(value, DTensor):
        return bool(value.isfinite().all())
    broken = (~value.to_local().isfinite()).sum()
    return not int(distributed.total(broken))


def _whole(state: Any) -> Any:
    """Nested dicts with whole tensors in place of shares."""
    from torch.distributed.tensor import DTensor

    if isinstance(state, Mapping):
        return {key: _whole(value) for key, value in state.items()}
    return state.full_tensor() if isinstance(state, DTensor) else state


def _like(own: Tensor | None, value: Tensor) -> Tensor:
    """The share of `value` that this process has of `own`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(own, DTensor):
        return value
    mesh: DeviceMesh = own.device_mesh
    return distribute_tensor(value.to(own.device), mesh, own.placements)
