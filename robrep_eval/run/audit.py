"""The attack behind `robrep-zoo verify --attack`: AutoAttack, with another seed.

Offered to the ground floor by the entry point group `robrep.audits`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from robrep_eval.attacks.battery import build
from robrep_eval.run.chunk import BatterySettings
from robrep_eval.run.engine import Run, run_battery
from zoo import compact
from zoo.arithmetic import full_float32
from zoo.classifier import Classifier
from zoo.collection.reattack import Attacked
from zoo.datasets.base import Dataset
from zoo.records import Examples, Outcome
from zoo.threads import fitting_threads, network_work
from zoo.threat import ThreatModel


@full_float32()
def attack_again(
    classifier: Classifier,
    data: Dataset,
    threat: ThreatModel,
    *,
    seed: int,
    device: str = "cpu",
    on_progress: Callable[[], None] = lambda: None,
) -> Attacked:
    """Runs the members of `standard` in turn, each on what those before it left.

    Args:
        classifier: On `device`.
        data: The images to attack.
        threat: What is allowed.
        seed: Of all draws.
        device: Where to run.
        on_progress: Called now and then.

    Returns:
        What fell to which of them, re-checked by `zoo.evidence`, with the adversarials.
    """
    battery = build("standard", norm=threat.norm)
    work = network_work(classifier, data.shape)
    with (
        tempfile.TemporaryDirectory(prefix="robrep-") as folder,
        fitting_threads(work),
    ):
        settings = BatterySettings(seed=seed, device=device)
        run = run_battery(
            classifier,
            data,
            threat,
            battery,
            settings=settings,
            folder=Path(folder),
            on_progress=lambda _: on_progress(),
        )
        images = _adversarials(run, data, threat)
    return Attacked(names=_names(run.examples), rows=run.positions, adversarials=images)


def _names(examples: Examples) -> list[str | None]:
    """Of each image what fooled it, or that it is wrong without attack."""
    found: list[str | None] = [
        None if label == guess else "(clean)"
        for label, guess in zip(examples.label, examples.clean_prediction, strict=True)
    ]
    for name, column in examples.outcomes.items():
        for row, outcome in enumerate(column):
            if outcome is Outcome.FOOLED:
                found[row] = name
    return found


def _adversarials(run: Run, data: Dataset, threat: ThreatModel) -> Tensor:
    """Those counted, as `Run.positions` has them; float32 (k, C, H, W)."""
    images, start = [torch.zeros(0, *data.shape)], 0
    for packed in run.parts():
        rows = run.positions[start : start + len(packed)]
        start += len(packed)
        own = data.subset(rows)
        images.append(compact.Images(packed, own.images, data.shape, threat)[:])
    return torch.cat(images)
