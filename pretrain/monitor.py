"""A quick look at an encoder while it trains: linear probe and PGD, held-out images.

It ranks epochs of one run and nothing else; figures come from `robrep-eval`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.data import Split
from pretrain.randomness import generator
from pretrain.recipe import Recipe
from robrep_eval.attacks.pgd import Objective, ascend
from robrep_eval.probes.linear import features
from robrep_eval.probes.logistic import fit_linear
from zoo.classifier import Classifier, predict
from zoo.encoder import Encoder
from zoo.layout import Layout

PENALTY = 1e-3
"""L2 penalty of the quick probe."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Accuracies in [0, 1] on held-out training images."""

    clean: float
    robust: float | None
    """Under PGD; None without a threat model."""

    @property
    def score(self) -> float:
        """What "best" means: robust accuracy, or clean where there is none."""
        return self.clean if self.robust is None else self.robust


def look(encoder: Encoder, parts: Split, recipe: Recipe, device: torch.device) -> Look:
    """Fits a probe on training images and attacks it on held-out ones."""
    settings = recipe.monitor
    fit, held = parts.train.take(settings.fit), parts.held_out.take(settings.limit)
    z = features(encoder, fit, Layout(device=str(device))).to(device)
    classes = len(fit.classes)
    head = fit_linear(
        z, fit.labels, classes=classes, l2=PENALTY, tolerance=1e-4, max_iterations=200
    )
    classifier = Classifier(encoder, head, classes=classes, shape=encoder.spec.shape)
    classifier.to(device)
    correct = attacked = 0
    for start in range(0, len(held), 256):
        block = slice(start, start + 256)
        x, y = held.images(block).to(device), held.labels[block].to(device)
        correct += _right(classifier, x, y)
        if recipe.threat is not None:
            adversarial = ascend(
                _cross_entropy(classifier, y),
                x,
                recipe.threat,
                steps=settings.steps,
                step_size=recipe.threat.eps / 4,
                generator=generator(recipe.seed, "monitor", start),
            )
            attacked += _right(classifier, adversarial, y)
    return Look(
        clean=correct / len(held),
        robust=attacked / len(held) if recipe.threat is not None else None,
    )


def _right(classifier: Classifier, x: Tensor, y: Tensor) -> int:
    logits = predict(classifier, x, Layout(device=str(x.device)))
    return int((logits.argmax(dim=1) == y.cpu()).sum())


def _cross_entropy(classifier: Classifier, y: Tensor) -> Objective:
    return lambda x: F.cross_entropy(classifier(x), y, reduction="none")
