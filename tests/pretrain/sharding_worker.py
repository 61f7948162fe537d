"""One process of two: each method under DDP and under FSDP, from the same weights.

Started by torchrun from test_pretraining_sharding.py; rank 0 writes the weights after
some steps, and which share of the numbers it held.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pretraining as tiny
import torch
from ddp_worker import VIEWS
from torch import Tensor, nn

from pretrain import distributed, methods
from pretrain.methods.base import Batch, Method
from pretrain.optimizer import build_optimizer
from pretrain.randomness import ImageGenerator
from pretrain.recipe import OptimizerSettings
from pretrain.sharding import Whole, shard

NAMES = [name for name in tiny.ALL if methods.get(name).shares]
STEPS = 3
CPU = torch.device("cpu")


def build(name: str) -> Method:
    """A method whose student has no batch statistics."""
    made = tiny.method(name, net=tiny.Plain(), augment=VIEWS)  # type: ignore[arg-type]
    torch.manual_seed(1)
    if made.projector_sets():
        made.projector = nn.Linear(tiny.Plain.dim, 4)
    return made


def trained(name: str, *, shared: bool) -> tuple[dict[str, Tensor], float]:
    """Weights after some steps, and the share of their numbers in this process."""
    made = build(name)
    count = sum(p.numel() for p in made.parameters())
    whole = Whole(made, None, leads=distributed.leads())
    module = shard(made, None, CPU) if shared else distributed.parallel(made, CPU)
    settings = OptimizerSettings(name="adamw", lr=0.01)
    optimizer = build_optimizer(made, settings, made.rates())
    half = slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
    data = tiny.batch(8)
    for step in range(STEPS):
        draws = ImageGenerator(0, "step", step, torch.arange(10, 18)[half])
        batch = Batch(x=data.x[half], y=data.y[half], generator=draws)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(module(batch).values())).sum().backward()
        made.before_step(step)
        optimizer.step()
    whole.gather(made, None, optimizer)
    held = sum(getattr(p, "_local_tensor", p).numel() for p in made.parameters())
    found = {} if whole.method is None else dict(whole.method.state_dict())
    return found, held / count


def main() -> None:
    """Runs every method and saves what rank 0 found."""
    torch.set_num_threads(1)
    with distributed.process_group(CPU):
        found = {}
        for name in NAMES:
            found[name] = [trained(name, shared=shared) for shared in (False, True)]
        if distributed.leads():
            torch.save(found, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
