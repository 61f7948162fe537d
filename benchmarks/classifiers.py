"""Classifiers and images that benchmarks measure on: made on the spot, from digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robrep_eval.attacks.pgd import ascend, frozen
from zoo import datasets
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset, from_array
from zoo.encoder import Encoder, EncoderSpec
from zoo.threat import ThreatModel

SMALL = EncoderSpec(
    arch="resnet_s8",
    options={"widths": [32, 64, 128], "blocks": [1, 1, 1]},
    shape=(1, 8, 8),
)
MEDIUM = EncoderSpec(
    arch="resnet_s28",
    options={"widths": [16, 32, 64], "blocks": [1, 1, 1], "stem_stride": 2},
    shape=(1, 28, 28),
)
COLOUR = EncoderSpec(
    arch="resnet_s28",
    options={"widths": [16, 32, 64], "blocks": [1, 1, 1], "stem_stride": 1},
    shape=(3, 32, 32),
)
TINY = EncoderSpec(
    arch="resnet_s28",
    options={"widths": [8, 16], "blocks": [1, 1], "stem_stride": 2},
    shape=(1, 28, 28),
)


def trained(spec: EncoderSpec, data: Dataset, eps: float, epochs: int) -> Classifier:
    """A classifier of `data`; adversarially trained (Linf) if `eps` is positive."""
    torch.manual_seed(0)
    encoder = Encoder(spec)
    head = nn.Linear(encoder.dim, len(data.classes))
    _train(nn.Sequential(encoder, head), data, eps, epochs)
    return Classifier(encoder, head, classes=len(data.classes), shape=spec.shape)


def _train(network: nn.Module, data: Dataset, eps: float, epochs: int) -> None:
    x, y = data.images(slice(None)), data.labels
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            images, labels = x[rows], y[rows]
            if eps:
                images = _attacked(network, images, labels, eps, generator)
            network.train()
            optimiser.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimiser.step()


def fitted(make: Callable[[], nn.Sequential], eps: float) -> Classifier:
    """A small network of digits; its last layer is the head.

    Args:
        make: A network in its first state.
        eps: Of adversarial training (Linf); 0: none.
    """
    torch.manual_seed(0)
    network = make()
    data = datasets.load("digits", "train")
    _train(network, data, eps, epochs=10)
    return Classifier(
        network[:-1], network[-1], classes=len(data.classes), shape=data.shape
    )


def _attacked(
    network: nn.Module, x: Tensor, y: Tensor, eps: float, generator: torch.Generator
) -> Tensor:
    threat = ThreatModel(norm="Linf", eps=eps)
    with frozen(network):
        return ascend(
            _objective(network, y),
            x,
            threat,
            steps=5,
            step_size=eps / 3,
            generator=generator,
        )


def _objective(network: nn.Module, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda v: F.cross_entropy(network(v), labels, reduction="none")


def shifted_digits(count: int, seed: int = 0) -> Dataset:
    """Digits enlarged to 28x28 and shifted at random, 8 bits a pixel."""
    data = datasets.load("digits", "train")
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(data), size=count)
    small = data.images(torch.from_numpy(rows)).numpy()[:, 0]
    large = np.zeros((count, 1, 28, 28), np.uint8)
    for at, image in enumerate(np.kron(small, np.ones((1, 3, 3))) * 255):
        top, left = rng.integers(5, size=2)
        large[at, 0, top : top + 24, left : left + 24] = image
    labels = data.labels.numpy()[rows]
    names = [str(digit) for digit in range(10)]
    return from_array(large, labels, name="shifted", split="test", classes=names)
