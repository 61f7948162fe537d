"""One process of two: half of a batch through each method, under DDP.

Started by torchrun from test_pretraining_ddp.py; rank 0 writes loss and gradients.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pretraining as tiny
import torch
from torch import Tensor, nn

import pretrain.methods.base as base
from pretrain import augment, distributed
from pretrain.methods.base import Batch, Method

NAMES = ("simclr", "acl", "advcl", "tarrl", "rocl", "pgd-at", "trades")


def build(name: str) -> Method:
    """A method whose networks have no batch statistics and whose views are exact."""
    augment.WEAK_SHIFT = 0.0
    setattr(base, "random_start", _start)  # noqa: B010 - not a public name there
    made = tiny.method(name, net=tiny.Plain())  # type: ignore[arg-type]
    torch.manual_seed(1)
    if made.projector_sets():
        made.projector = nn.Linear(tiny.Plain.dim, 4)
    return made


def batch(part: slice) -> Batch:
    """Rows of the one global batch."""
    whole = tiny.batch(8)
    return Batch(x=whole.x[part], y=whole.y[part], generator=whole.generator)


def gradients(module: nn.Module, made: Method, part: slice) -> dict[str, Tensor]:
    """Loss and parameter gradients after one backward pass."""
    total = torch.stack(list(module(batch(part)).values())).sum()
    total.backward()
    found = {k: p.grad for k, p in made.named_parameters() if p.grad is not None}
    return {**found, "loss": distributed.mean(total)}


def _start(x: Tensor, *_: object) -> Tensor:
    """A start that depends on the image alone, not on the process."""
    return (x + 0.05 * torch.sin(37 * x)).clamp(0, 1)


def main() -> None:
    """Runs every method and saves what rank 0 found."""
    torch.set_num_threads(1)
    with distributed.process_group(torch.device("cpu")):
        half = slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
        found = {name: _in_parallel(name, half) for name in NAMES}
        if distributed.rank() == 0:
            torch.save(found, Path(sys.argv[1]))


def _in_parallel(name: str, part: slice) -> dict[str, Tensor]:
    """Networks live no longer than this: `process_group` wants them gone."""
    made = build(name)
    return gradients(distributed.parallel(made, torch.device("cpu")), made, part)


if __name__ == "__main__":
    main()
