"""One process of two: half of a batch through each method, under DDP.

Started by torchrun from test_pretraining_ddp.py; rank 0 writes loss and gradients.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pretraining as tiny
import torch
from torch import Tensor, nn

from pretrain import distributed
from pretrain.build import pixel_statistics, shared_features
from pretrain.methods.base import Batch, Method
from pretrain.randomness import ImageGenerator
from pretrain.recipe import AugmentSettings
from zoo.datasets.base import from_array
from zoo.layout import Layout

VIEWS = AugmentSettings(crop=0.5, rotate=20, flip=0.5, jitter=(0.3, 0.3, 0, 0))
NAMES = ("simclr", "acl", "advcl", "tarrl", "rocl", "pgd-at", "trades")


def build(name: str) -> Method:
    """A method whose networks have no batch statistics."""
    made = tiny.method(name, net=tiny.Plain(), augment=VIEWS)  # type: ignore[arg-type]
    torch.manual_seed(1)
    if made.projector_sets():
        made.projector = nn.Linear(tiny.Plain.dim, 4)
    return made


def batch(part: slice) -> Batch:
    """Rows of the one global batch, which are images 10, 11, ... of their set."""
    whole = tiny.batch(8)
    draws = ImageGenerator(0, "step", 2, torch.arange(10, 18)[part])
    return Batch(x=whole.x[part], y=whole.y[part], generator=draws)


def gradients(module: nn.Module, made: Method, part: slice) -> dict[str, Tensor]:
    """Loss and parameter gradients after one backward pass."""
    total = torch.stack(list(module(batch(part)).values())).sum()
    total.backward()
    found = {k: p.grad for k, p in made.named_parameters() if p.grad is not None}
    return {**found, "loss": distributed.mean(total)}


def shared() -> dict[str, Tensor]:
    """What all processes find out together: teacher's features, pixels' statistics."""
    images = (255 * tiny.batch(47, seed=5).x).byte().numpy()
    labels = np.zeros(47, dtype=np.int64)
    data = from_array(images, labels, name="own", split="train", classes=("a",))
    teacher, seen = tiny.encoder().eval(), list[int]()
    teacher.register_forward_hook(lambda _m, x, _y: seen.append(len(x[0])))
    one = shared_features(teacher, data.take(3), Layout(batch_size=8))
    z = shared_features(teacher, data, Layout(batch_size=8))
    mean, deviation = pixel_statistics(data)
    most = distributed.total(torch.tensor(float(sum(seen)))) / distributed.world()
    return {"z": z, "few": one, "mean": mean, "std": deviation, "mean_seen": most}


def main() -> None:
    """Runs every method and saves what rank 0 found."""
    torch.set_num_threads(1)
    with distributed.process_group(torch.device("cpu")):
        half = slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
        found = {name: _in_parallel(name, half) for name in NAMES}
        found["shared"] = shared()
        if distributed.rank() == 0:
            torch.save(found, Path(sys.argv[1]))


def _in_parallel(name: str, part: slice) -> dict[str, Tensor]:
    """Networks live no longer than this: `process_group` wants them gone."""
    made = build(name)
    return gradients(distributed.parallel(made, torch.device("cpu")), made, part)


if __name__ == "__main__":
    main()
