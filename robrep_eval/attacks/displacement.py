"""Attacks in feature space: away from an image's own features, or towards others'.

They need no label and no head, so one run serves every probe on the encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.pgd import ascend
from zoo._version import __version__
from zoo.ball import random_start
from zoo.classifier import Classifier
from zoo.layout import ON_CPU, Layout
from zoo.threat import ThreatModel

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class FeatureAttackSettings:
    """Of the ascent in feature space."""

    steps: int = 50
    relative_step: float = 0.25
    """Length of a step as a share of eps, in the first half of the steps; a fifth of
    it afterwards."""
    restarts: int = 1
    seed: int = 0


def squared_distance(z: Tensor, reference: Tensor) -> Tensor:
    """||z - reference||_2^2 per row (N,)."""
    return (z - reference).square().sum(dim=1)


def displace(
    encoder: nn.Module,
    x: Tensor,
    threat: ThreatModel,
    settings: FeatureAttackSettings,
    layout: Layout = ON_CPU,
) -> Tensor:
    """Images whose features lie as far from the clean ones as was found.

    Maximises ||g(x + delta) - g(x)||^2 from a RANDOM start: at delta = 0 its gradient
    is exactly zero and nothing would ever move. With restarts the farthest counts.

    Args:
        encoder: Images to features, eval mode, parameters frozen.
        x: Clean images (N, C, H, W).
        threat: Norm and eps.
        settings: Steps and seed.
        layout: Where the encoder lives, and images per forward pass.
    """
    return _each_batch(
        encoder,
        x,
        None,
        threat,
        settings,
        layout,
        lambda z, own: squared_distance(z, own),
    )


def approach(
    encoder: nn.Module,
    x: Tensor,
    targets: Tensor,
    threat: ThreatModel,
    settings: FeatureAttackSettings,
    layout: Layout = ON_CPU,
) -> Tensor:
    """Images inside the ball around `x` whose features come nearest to `targets`.

    One ball around the clean image throughout: the published code re-centres it while
    it runs, which lets the perturbation grow beyond eps.

    Args:
        encoder: As for `displace`.
        x: Clean images (N, C, H, W).
        targets: Features (N, d), one row for each image.
        threat: Norm and eps.
        settings: Steps and seed.
        layout: Where the encoder lives, and images per forward pass.
    """
    return _each_batch(
        encoder,
        x,
        targets,
        threat,
        settings,
        layout,
        lambda z, aim: -squared_distance(z, aim),
    )


def _each_batch(
    encoder: nn.Module,
    x: Tensor,
    references: Tensor | None,
    threat: ThreatModel,
    settings: FeatureAttackSettings,
    layout: Layout,
    value: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Ascends `value(g(x'), reference)`; the reference defaults to g(x)."""
    generator = torch.Generator().manual_seed(settings.seed)
    parts = []
    for start in range(0, len(x), layout.batch_size):
        rows = slice(start, start + layout.batch_size)
        clean = x[rows].to(layout.device)
        if references is None:
            with torch.no_grad():
                reference = encoder(clean)
        else:
            reference = references[rows].to(layout.device, clean.dtype)

        def objective(images: Tensor, reference: Tensor = reference) -> Tensor:
            times = len(images) // len(reference)
            return value(encoder(images), reference.repeat(times, 1))

        together = 0 < settings.restarts * len(clean) <= layout.batch_size
        found = _restarts(objective, clean, threat, settings, generator, together)
        parts.append(found.cpu())
    return torch.cat(parts)


def _restarts(
    objective: Callable[[Tensor], Tensor],
    x: Tensor,
    threat: ThreatModel,
    settings: FeatureAttackSettings,
    generator: torch.Generator,
    together: bool,
) -> Tensor:
    """The best of several ascents, row by row; never worse than the clean image.

    The objective takes the images once or several times over. `together` makes all
    ascents in the same passes, which are cheaper than smaller ones.
    """
    with torch.no_grad():
        best, best_value = x, objective(x)
    starts = (random_start(x, threat, generator) for _ in range(settings.restarts))
    groups = [list(starts)] if together else ([start] for start in starts)
    for some in groups:
        many = x.repeat(len(some), *[1] * (x.ndim - 1))
        ends = _two_stages(objective, many, threat, settings, torch.cat(some))
        with torch.no_grad():
            values = objective(ends)
        for found, reached in zip(
            ends.split(len(x)), values.split(len(x)), strict=True
        ):
            higher = (reached > best_value).view(-1, *[1] * (x.ndim - 1))
            best = torch.where(higher, found, best)
            best_value = torch.maximum(reached, best_value)
    return best


def _two_stages(
    objective: Callable[[Tensor], Tensor],
    x: Tensor,
    threat: ThreatModel,
    settings: FeatureAttackSettings,
    start: Tensor,
) -> Tensor:
    """Half of the steps at full length, the rest from the best point at a fifth.

    Towards a target the optimum may lie inside the ball, where long sign steps only
    jump around it.
    """
    step = settings.relative_step * threat.eps
    half = settings.steps // 2
    coarse = ascend(
        objective,
        x,
        threat,
        steps=half,
        step_size=step,
        start=start,
        keep_best=True,
    )
    return ascend(
        objective,
        x,
        threat,
        steps=settings.steps - half,
        step_size=step / 5,
        start=coarse,
        keep_best=True,
    )


@dataclass(frozen=True, kw_only=True)
class DisplacementAttack:
    """`displace` as a member of a battery; see `robrep_eval.attacks.base.Attack`."""

    steps: int = 50
    restarts: int = 2
    name: str = "displacement"
    engine: str = field(default=f"robrep {__version__}", init=False)
    sequence: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "restarts": self.restarts,
            "relative_step": FeatureAttackSettings.relative_step,
            "objective": "squared L2 distance of features",
            "start": "uniform in the ball",
        }

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """The farthest displacement found; labels are not read."""
        settings = FeatureAttackSettings(
            steps=self.steps,
            restarts=self.restarts,
            seed=context.seed,
        )
        found = displace(classifier.encoder, x, threat, settings, context.layout)
        context.progress(1.0)
        return found


DISPLACEMENT = DisplacementAttack()
