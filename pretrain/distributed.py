"""Several processes under torchrun; with one process every function is the identity."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretrain.watch import Watch, watch
from zoo.device import check_device
from zoo.errors import UserError

MARGIN = timedelta(minutes=5)
_watch: Watch | None = None
"""Over the other processes, inside `process_group`."""


def active() -> bool:
    """True inside a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Of this process, from 0."""
    return dist.get_rank() if active() else 0


def leads() -> bool:
    """True in the one process that writes files and speaks to people."""
    return rank() == 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if active() else 1


def launched() -> bool:
    """True if torchrun started this process."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def device(name: str) -> torch.device:
    """The device called `name`, under torchrun the one of this process.

    Raises:
        UserError: torch does not know it, or it is not there.
    """
    try:
        found = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device '{name}'; use cpu or cuda") from None
    if found.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"device '{name}' was asked for, but torch sees no GPU")
        if launched():
            found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(found)
    check_device(str(found))
    return found


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the group that torchrun prepared: NCCL on GPUs, gloo on CPUs.

    A process that does not come to a `meeting` is named, and the others end.
    """
    if not launched():
        yield
        return
    global _watch
    over = watch()
    kind = "nccl" if device.type == "cuda" else "gloo"
    # The watch speaks before the backend ends a process without a word of which.
    wait = None if over is None else over.wait + MARGIN
    dist.init_process_group(kind, timeout=wait)
    try:
        with over or nullcontext():
            _watch = over
            yield
    finally:
        _watch = None
        # The group's threads end with the last reference to it, and networks under DDP
        # hold one in a cycle. Left to the end of the interpreter, such a thread aborts
        # the process now and then ("terminate called without an active exception").
        gc.collect()
        dist.destroy_process_group()


def meeting() -> AbstractContextManager[Any]:
    """Around what this process waits for the others in."""
    return nullcontext() if _watch is None else _watch.meeting()


class _Gather(torch.autograd.Function):
    """Rows of all processes, in the order of their ranks, with gradients.

    The loss that counts is the mean over processes, each of which depends on the rows
    of all; DDP averages parameter gradients, so the rows of this process must carry
    the sum, over processes, of the gradients with respect to them.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(world())]
        with meeting():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        with meeting():
            dist.all_reduce(total)
        start = rank() * ctx.count
        return total[start : start + ctx.count]


def gather(rows: Tensor) -> Tensor:
    """(n, ...) to (n * world, ...); every process must hold n rows."""
    return _Gather.apply(rows) if world() > 1 else rows


def mean(values: Tensor) -> Tensor:
    """Average over processes, without gradients."""
    if world() == 1:
        return values.detach()
    total = values.detach().clone()
    with meeting():
        dist.all_reduce(total)
    return total / world()


@contextmanager
def together(module: nn.Module, *, when: bool) -> Iterator[None]:
    """Around forward and backward passes of a step, in which DDP meets.

    A backward pass inside averages gradients over processes only `when` told to.
    """
    averaged: AbstractContextManager[Any] = nullcontext()
    if not when and isinstance(module, nn.parallel.DistributedDataParallel):
        averaged = module.no_sync()
    with meeting(), averaged:
        yield


def own_rows(count: int, block: int, of: int | None = None) -> range:
    """Rows of this process, or of process `of`; `count`, shared out in whole blocks."""
    each = math.ceil(math.ceil(count / block) / world()) * block
    first = min(count, (rank() if of is None else of) * each)
    return range(first, min(count, first + each))


def total(values: Tensor) -> Tensor:
    """Sum over processes, without gradients, on the device of `values`."""
    if world() == 1:
        return values
    summed = _reachable(values).clone()
    with meeting():
        dist.all_reduce(summed)
    return summed.to(values.device)


def joined(rows: Tensor, count: int, block: int) -> Tensor:
    """(count, ...): the rows of all processes, of which each has its `own_rows`."""
    if world() == 1:
        return rows
    sizes = [len(own_rows(count, block, of)) for of in range(world())]
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows
    padded = _reachable(padded)
    parts = [torch.empty_like(padded) for _ in sizes]
    with meeting():
        dist.all_gather(parts, padded)
    kept = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    return torch.cat(kept).to(rows.device)


def _reachable(values: Tensor) -> Tensor:
    """Where the processes can exchange it: NCCL sees GPUs alone."""
    return values.cuda() if dist.get_backend() == "nccl" else values


def told(said: bool, device: torch.device) -> bool:
    """What the leading process says, in all."""
    return bool(total(torch.tensor(float(said and leads()), device=device)))


def barrier() -> None:
    """Waits for all processes."""
    if world() > 1:
        with meeting():
            dist.barrier()


def parallel(method: nn.Module, device: torch.device) -> nn.Module:
    """The method under DDP, if there are several processes."""
    if world() == 1:
        return method
    from torch.nn.parallel import DistributedDataParallel

    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(method)
    with meeting():
        return DistributedDataParallel(method)
