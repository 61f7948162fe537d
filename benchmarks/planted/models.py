"""Honest models: whatever they withstand, no check may mark them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.classifiers import fitted
from robrep_eval.probes.logistic import fit_linear
from zoo import datasets
from zoo.classifier import Classifier
from zoo.collection import store

SHAPE = (1, 8, 8)
ENCODERS = (
    "simclr-digits",
    "rocl-digits",
    "acl-digits",
    "advcl-digits",
    "dynacl-digits",
    "dynacl-pp-digits",
    "deacl-digits",
    "tarrl-digits",
    "tarrl-b64-digits",
    "prototypes-digits",
    "spectral-digits",
    "pgd-at-digits",
    "pgd-at-b64-digits",
    "trades-digits",
)


def plain(classes: int = 10) -> Classifier:
    """A small convolutional network without any defence."""
    return fitted(_convolutional(classes), 0.0)


def honest() -> Iterator[tuple[str, Classifier]]:
    """Twenty of them, with names."""
    for seed, name in enumerate(ENCODERS):
        yield f"{name}, another probe", _probed(store.load_encoder_by_name(name), seed)
    yield "small network", plain()
    yield "small network, trained at 0.05", fitted(_convolutional(10), 0.05)
    yield "small network, trained at 0.15", fitted(_convolutional(10), 0.15)
    yield "logistic regression on pixels", fitted(_stack(nn.Linear(64, 10)), 0.0)
    yield "two layers of tanh", fitted(_two_layers(nn.Tanh()), 0.05)
    yield "two layers of softplus", fitted(_two_layers(nn.Softplus(4.0)), 0.0)


def _probed(encoder: nn.Module, seed: int) -> Classifier:
    """With a probe on half of the training images."""
    train = datasets.load("digits", "train")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train), generator=generator)[: len(train) // 2]
    with torch.no_grad():
        z: Tensor = encoder(train.images(rows))
    head = fit_linear(z, train.labels[rows], classes=10, l2=1e-3, tolerance=1e-4)
    return Classifier(encoder, head, classes=10, shape=SHAPE)


def _convolutional(classes: int) -> Callable[[], nn.Sequential]:
    return lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, classes),
    )


def _stack(*layers: nn.Module) -> Callable[[], nn.Sequential]:
    return lambda: nn.Sequential(nn.Flatten(), *layers)


def _two_layers(bend: nn.Module) -> Callable[[], nn.Sequential]:
    return _stack(nn.Linear(64, 96), bend, nn.Linear(96, 10))
