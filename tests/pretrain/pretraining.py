"""What the tests of pretraining share: tiny networks, a loss written as loops."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from pretrain import methods
from pretrain.methods.base import Batch, Materials, Method
from pretrain.recipe import AttackSettings, AugmentSettings, ProjectorSettings
from zoo.encoder import Encoder, EncoderSpec
from zoo.threat import ThreatModel

THREAT = ThreatModel(norm="Linf", eps=0.1)
SHAPE = (1, 8, 8)
TEACHER = ("advcl", "deacl", "dynacl++", "prototypes", "spectral")
OPTIONS: dict[str, dict[str, Any]] = {
    "advcl": {"clusters": [2, 3]},
    "dynacl++": {"clusters": 3},
    "prototypes": {"clusters": 3},
    "spectral": {"clusters": 3, "neighbours": 2},
}
ALL = sorted(methods.registry().keys() - {"lipschitz-contrast"})
"""Those that train any architecture; the other has tests of its own."""


def encoder(seed: int = 0) -> Encoder:
    """A residual network of a few hundred weights."""
    torch.manual_seed(seed)
    options = {"widths": [8, 8], "blocks": [1, 1], "stem_stride": 2}
    return Encoder(EncoderSpec(arch="resnet_s8", options=options, shape=SHAPE))


def method(
    name: str,
    *,
    steps: int = 2,
    options: dict[str, Any] | None = None,
    augment: AugmentSettings | None = None,
    net: Encoder | None = None,
    threat: ThreatModel = THREAT,
) -> Method:
    """A method on the tiny network; views are the images themselves by default."""
    kind = methods.get(name)
    chosen = kind.Options.model_validate({**OPTIONS.get(name, {}), **(options or {})})
    net = net or encoder()
    made = kind(
        Materials(
            encoder=net,
            options=chosen,
            threat=threat,
            attack=AttackSettings(steps=steps),
            projector=ProjectorSettings(hidden=8, out=4),
            augment=augment or AugmentSettings(),
            classes=3,
            teacher=encoder(1) if kind.needs_teacher(chosen) else None,
        )
    )
    return made.train()


def batch(n: int = 6, k: int = 2, seed: int = 0) -> Batch:
    """Random images with labels below 2."""
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        x=torch.rand(n, *SHAPE, generator=generator),
        y=torch.randint(0, 2, (n, k), generator=generator),
        generator=generator,
    )


class Plain(nn.Module):
    """An encoder free of batch statistics: the rows of a batch do not meet."""

    dim = 5

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, self.dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) to (N, 5)."""
        return self.layers(x)  # type: ignore[no-any-return]


def contrast_by_loops(views: list[Tensor], temperature: float) -> float:
    """Mean over anchors and positives of -s/t + log of the sum over all others."""
    n = len(views[0])
    rows = [(v, i) for v, i in product(range(len(views)), range(n))]

    def similarity(a: tuple[int, int], b: tuple[int, int]) -> float:
        p, q = views[a[0]][a[1]], views[b[0]][b[1]]
        return float(p @ q / (p.norm() * q.norm())) / temperature

    total, terms = 0.0, 0
    for anchor in rows:
        others = sum(math.exp(similarity(anchor, r)) for r in rows if r != anchor)
        for other in rows:
            if other != anchor and other[1] == anchor[1]:
                total += math.log(others) - similarity(anchor, other)
                terms += 1
    return total / terms
