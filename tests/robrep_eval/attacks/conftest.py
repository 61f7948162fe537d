"""Small classifiers trained on digits, for tests of attacks: fast and real.

`make` gives functions, so that a test can ask for several classifiers.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robrep_eval.attacks.pgd import ascend
from zoo.classifier import Classifier
from zoo.datasets import load
from zoo.threat import ThreatModel

SHAPE = (1, 8, 8)


class Make:
    """Classifiers and examples by their properties."""

    def classifier(self, strength: float, classes: int = 10) -> Classifier:
        """Adversarially trained at `strength` times 0.1 in Linf; 0: not at all."""
        return _trained(strength, classes)

    def correct(
        self, classifier: Classifier, count: int, classes: int = 10
    ) -> tuple[Tensor, Tensor]:
        """The first `count` test images that the classifier gets right."""
        x, y = _digits("test", classes)
        with torch.no_grad():
            right = classifier(x).argmax(dim=1) == y
        return x[right][:count], y[right][:count]


@pytest.fixture(scope="session")
def make() -> Make:
    return Make()


def _network(classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, classes),
    )


@cache
def _digits(split: str, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Images and labels of the first `classes` digits."""
    data = load("digits", split)
    keep = data.labels < classes
    return data.images(slice(None))[keep], data.labels[keep]


@cache
def _trained(strength: float, classes: int = 10) -> Classifier:
    """Ten epochs of adversarial training at `strength` times 0.1 in Linf; 0: none."""
    torch.manual_seed(0)
    net = _network(classes)
    x, y = _digits("train", classes)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        for batch in torch.randperm(len(x), generator=generator).split(128):
            images = x[batch]
            if strength:
                net.eval()
                images = ascend(
                    lambda v, labels=y[batch]: F.cross_entropy(  # type: ignore[misc]
                        net(v), labels, reduction="none"
                    ),
                    images,
                    ThreatModel(norm="Linf", eps=strength * 0.1),
                    steps=5,
                    step_size=strength * 0.03,
                    generator=generator,
                )
                net.train()
            optimiser.zero_grad()
            F.cross_entropy(net(images), y[batch]).backward()
            optimiser.step()
    encoder, head = net[:-1], net[-1]
    return Classifier(encoder, head, classes=classes, shape=SHAPE)
