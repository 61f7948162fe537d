"""By what the penalty of a linear probe is chosen: images held out of the training set.

SLF asks on how many of them a head is right; SLF-R on how many it stays right under a
short attack. Test images choose nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robrep_eval.attacks.pgd import frozen, reaches
from zoo.ball import random_start
from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.layout import Layout
from zoo.margins import margin
from zoo.selection import spaced
from zoo.threads import fitting_threads, network_work
from zoo.threat import ThreatModel

MIN_HELD_OUT = 100
MAX_SPLITS = 5


def split(y: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions for fitting and for validation, stratified by class, reproducible."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(y))
    held: list[int] = []
    labels = y.numpy()
    for label in np.unique(labels):
        members = order[labels[order] == label]
        if len(members) > 1:
            held += members[: max(1, round(share * len(members)))].tolist()
    mask = torch.zeros(len(y), dtype=torch.bool)
    mask[held] = True
    return (~mask).nonzero().flatten(), mask.nonzero().flatten()


def held_out(y: Tensor, share: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    """One split into fitting and validation part; several where labels are few.

    A handful of held-out images chooses next to nothing, so with fewer than 100 the
    split is drawn anew, up to five times, until that many have been held out.

    Raises:
        UserError: no class has two images, so none can be held out.
    """
    first = split(y, share, seed)
    if not len(first[1]):
        raise UserError(
            f"no class has two of the {len(y)} training images, so none can be held "
            "out to choose the probe's settings"
        )
    count = min(MAX_SPLITS, -(-MIN_HELD_OUT // len(first[1])))
    return [first, *(split(y, share, seed + i) for i in range(1, count))]


@dataclass(frozen=True)
class Judge:
    """How SLF-R chooses: one budget for every encoder, dataset and penalty.

    The attack climbs the margin of the logits. Unlike cross-entropy it has a gradient
    for heads of any size, so a small penalty cannot hide behind a saturated loss.
    """

    encoder: nn.Module
    """Frozen, where `layout` says."""
    train: Dataset
    """What images are held out of."""
    threat: ThreatModel
    layout: Layout
    images: int = 500
    """Of each held-out part."""
    steps: int = 10
    relative_step: float = 0.25
    """Length of a step as a share of eps."""
    seed: int = 0
    """Of the random starts: the same ones for each head."""

    def said(self) -> dict[str, object]:
        """For the record."""
        return {
            "attack": "PGD on the margin of the logits",
            "threat": str(self.threat),
            "images": self.images,
            "steps": self.steps,
            "relative_step": self.relative_step,
            "seed": self.seed,
        }

    def chosen(self, held: Tensor) -> Tensor:
        """Those of the held-out row numbers that are attacked, evenly spaced."""
        count = min(self.images, len(held))
        return held[torch.from_numpy(spaced(len(held), count))]

    def right(self, head: nn.Module, rows: Tensor) -> int:
        """Of how many training images, by number, the prediction stays right."""
        classifier = nn.Sequential(self.encoder, head)
        work = network_work(classifier, self.train.shape)
        x, y = self.train.images(rows), self.train.labels[rows]
        size, fallen = self.layout.batch_size, 0
        generator = torch.Generator().manual_seed(self.seed)
        with frozen(classifier), fitting_threads(work):
            for images, labels in zip(x.split(size), y.split(size), strict=True):
                fallen += self._fallen(classifier, images, labels, generator)
        return len(y) - fallen

    def _fallen(
        self, classifier: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> int:
        """Of how many images of one batch some point of the path is misclassified."""
        x, y = x.to(self.layout.device), y.to(self.layout.device)
        found = reaches(
            lambda images, rows: -margin(classifier(images), y[rows]),
            x,
            self.threat,
            above=0,
            steps=self.steps,
            step_size=self.relative_step * self.threat.eps,
            start=random_start(x, self.threat, generator),
        )
        return int(found.sum())
