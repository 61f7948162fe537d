"""Square on images of any shape: the reference's verdicts wherever that runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack import square as reference
from torch import Tensor, nn

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.randomness import seeded
from zoo.ball import lengths
from zoo.classifier import Classifier, predict
from zoo.threat import Norm, ThreatModel

QUERIES, N, SEED = 60, 24, 3
RADII: dict[Norm, float] = {"Linf": 0.003, "L2": 0.04, "L1": 0.1}
SHAPES = [
    (1, 8, 8),
    (1, 9, 9),
    (1, 8, 20),
    (1, 8, 40),
    (1, 20, 8),
    (1, 40, 8),
    (3, 16, 64),
    (2, 64, 16),
    (1, 1, 30),
    (1, 30, 1),
    (1, 3, 50),
    (3, 2, 2),
    (1, 1, 1),
    (1, 19, 19),
]
REFERENCE_STOPS = {(1, 1, 30), (1, 3, 50), (3, 2, 2), (1, 1, 1), (1, 19, 19)}
"""In L2 and L1: fewer than five rows, or a grid of tiles that leaves the image."""


def _case(shape: tuple[int, int, int]) -> tuple[Classifier, Tensor, Tensor]:
    """Random features of random images: near boundaries, so that few queries do."""
    torch.manual_seed(0)
    channels, height, width = shape
    net = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * height * width, 3),
    )
    x = torch.rand(400, *shape)
    logits = net(x).detach()
    net[3].bias.data -= logits.mean(dim=0)
    classifier = Classifier(net, nn.Identity(), classes=3, shape=shape)
    top = predict(classifier, x).topk(2, dim=1)
    near = (top.values[:, 0] - top.values[:, 1]).argsort()[: 8 * N : 8]
    return classifier, x[near], top.indices[near, 0]


def _ours(
    case: tuple[Classifier, Tensor, Tensor], threat: ThreatModel, randomness: Any
) -> Tensor:
    classifier, x, y = case
    attack = SquareAttack(name="square", steps=QUERIES, randomness=randomness)
    context = Context(seed=SEED, ids=torch.arange(N), batch_size=N)
    return attack.propose(classifier, x, y, threat, context)


@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_square_takes_any_shape(norm: Norm, shape: tuple[int, int, int]) -> None:
    case = _case(shape)
    classifier, x, y = case
    threat = ThreatModel(norm=norm, eps=RADII[norm])
    for randomness in ("per-example", "official-rng"):
        found = _ours(case, threat, randomness)
        assert bool((lengths(found - x, norm) <= threat.eps * (1 + 1e-4)).all())
        assert bool((predict(classifier, found).argmax(dim=1) != y).any())
    peer: Any = reference.SquareAttack(
        classifier,
        norm=norm,
        eps=threat.eps,
        n_queries=QUERIES,
        p_init=0.8,
        resc_schedule=False,
        seed=SEED,
        device="cpu",
    )
    with seeded(SEED), torch.no_grad():
        if norm != "Linf" and shape in REFERENCE_STOPS:
            with pytest.raises((ZeroDivisionError, RuntimeError)):
                peer.perturb(x, y)
            return
        theirs = predict(classifier, peer.perturb(x, y)).argmax(dim=1) != y
    got = predict(classifier, found).argmax(dim=1) != y
    assert got.tolist() == theirs.tolist()
    assert not bool(got.all())
