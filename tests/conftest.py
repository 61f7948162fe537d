"""Shared fixtures: small real classifiers on the digits, trained once per session."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch
from browsing import browser  # noqa: F401 - a fixture
from torch import nn

from robrep_eval.attacks.pgd import ascend, frozen
from zoo import datasets
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder, EncoderSpec
from zoo.threat import ThreatModel

# Two test processes on two cores must not fight over them, nor the commands that they
# run: OpenMP threads that spin at a barrier while others hold their core made a run of
# seconds take minutes.
THREADS = max(1, (os.cpu_count() or 2) // 2)
torch.set_num_threads(THREADS)
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))

# Results of a tree with changes are not published; tests publish from any tree.
os.environ.setdefault("ROBREP_REVISION", "0" * 40)

# A shared machine makes single examples slow; wall time is never the question.
hypothesis.settings.register_profile("robrep", deadline=None)
hypothesis.settings.load_profile("robrep")

LINF = ThreatModel(norm="Linf", eps=0.1)
SMALL = EncoderSpec(
    arch="resnet_s8",
    options={"widths": [8, 16, 32], "blocks": [1, 1, 1]},
    shape=(1, 8, 8),
    mean=(0.3,),
    std=(0.4,),
)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("ROBREP_HOME", str(tmp_path / "robrep-home"))
    monkeypatch.delenv("ROBREP_OFFLINE", raising=False)


@pytest.fixture(scope="session")
def digits_train() -> Dataset:
    return datasets.load("digits", "train")


@pytest.fixture(scope="session")
def digits_test() -> Dataset:
    return datasets.load("digits", "test")


def train_classifier(data: Dataset, *, eps: float, epochs: int) -> Classifier:
    """Supervised training on digits; adversarial (two steps) if eps is positive."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    encoder, head = Encoder(SMALL), nn.Linear(32, 10)
    x, y = data.images(slice(None)), data.labels
    optimiser = torch.optim.SGD(
        [*encoder.parameters(), *head.parameters()], lr=0.1, momentum=0.9
    )
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            batch, target = x[rows], y[rows]
            if eps:
                with frozen(encoder, head):
                    batch = ascend(
                        lambda v, t=target: nn.functional.cross_entropy(  # type: ignore[misc]
                            head(encoder(v)), t, reduction="none"
                        ),
                        batch,
                        ThreatModel(norm="Linf", eps=eps),
                        steps=2,
                        step_size=eps * 0.75,
                        generator=generator,
                    )
            encoder.train()
            loss = nn.functional.cross_entropy(head(encoder(batch)), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return Classifier(encoder, head, classes=10, shape=(1, 8, 8))


@pytest.fixture(scope="session")
def plain_classifier(digits_train: Dataset) -> Classifier:
    """Accurate when clean, broken under attack."""
    return train_classifier(digits_train, eps=0.0, epochs=6)


@pytest.fixture(scope="session")
def robust_classifier(digits_train: Dataset) -> Classifier:
    """Withstands Linf 0.1 on most digits."""
    return train_classifier(digits_train, eps=0.1, epochs=10)
