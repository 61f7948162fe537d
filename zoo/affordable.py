"""What the measurements that every evaluation makes may cost: a share of its battery.

Counted in passes (forward or backward, of one image) from what the record says, so
that neither batches nor machines decide how many images are looked at, and whoever
reads the record can tell how many there must have been. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.records import AttackRun, Result

SHARE = 0.2
"""Of the battery's passes; half of it for the health checks and the curve ..."""
HEALTH, STANDING, BOUND = 0.5, 0.2, 0.3
"""... and the rest for attacks on what stands, and for the bound."""
PER_IMAGE = {HEALTH: 700, STANDING: 1320, BOUND: 310}
"""Most passes for an image; less where attacks succeed early."""
LEAST = {HEALTH: 16, STANDING: 8, BOUND: 16}
"""Images looked at however little the battery did."""
HEALTH_IMAGES, BOUND_IMAGES = 256, 2000
"""Images looked at however much it did."""
USUAL_STEPS = 50
"""Of an attack whose record does not say."""


@dataclass(frozen=True)
class Affordable:
    """So many images at most."""

    health: int
    standing: int
    bound: int


def affordable(result: Result, shape: tuple[int, ...]) -> Affordable:
    """How many images the share of the battery's passes is enough for.

    Args:
        result: What was attacked, and how.
        shape: Of an image (C, H, W).
    """
    passes = SHARE * sum(_passes(run, shape) for run in result.attacks)
    health, standing, bound = (
        max(LEAST[part], math.floor(part * passes / PER_IMAGE[part]))
        for part in (HEALTH, STANDING, BOUND)
    )
    return Affordable(health, standing, bound)


def fewest(result: Result) -> Affordable:
    """How many images the measurements of a record were made on, or more: earlier
    versions looked at more than a share of the battery pays for."""
    n, most = result.dataset.n, affordable(result, result.dataset.shape)
    return Affordable(
        health=min(n, HEALTH_IMAGES, most.health),
        standing=min(n, most.standing),
        bound=min(n, BOUND_IMAGES, most.bound),
    )


def _passes(run: AttackRun, shape: tuple[int, ...]) -> int:
    """Of the images that the attack did not fool; the others leave early."""
    return (run.attempted - run.fooled) * _for_survivor(run.parameters, run.name, shape)


def _for_survivor(
    settings: Mapping[str, Any], name: str, shape: tuple[int, ...]
) -> int:
    """At least so many, by the settings in the record."""
    rounds = settings.get("rounds")
    if isinstance(rounds, list | tuple):
        return sum(
            _for_survivor(one, str(one.get("attack", "")), shape)
            for one in rounds
            if isinstance(one, Mapping) and one.get("near") is None
        )
    steps = _number(settings, "steps", USUAL_STEPS)
    if "square" in name:  # it tries no square again that an image rejected
        return min(steps, 3 * math.prod(shape[1:]))
    runs = _number(settings, "restarts", 1)
    for_all = settings.get("near") in (None, 1)
    aims = _number(settings, "targets", 1) if for_all else 1
    return steps * runs * aims * (3 if "fab" in name else 2)


def _number(settings: Mapping[str, Any], key: str, usual: int) -> int:
    """At least 1; the usual one if a record says no number."""
    value = settings.get(key) or usual
    return max(1, int(value)) if isinstance(value, int | float) else usual
