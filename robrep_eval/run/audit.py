"""The attack behind `robrep-zoo verify --attack`: AutoAttack, with another seed.

Offered to the ground floor by the entry point group `robrep.audits`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from robrep_eval.attacks.battery import build
from robrep_eval.run.chunk import BatterySettings
from robrep_eval.run.engine import run_battery
from zoo.arithmetic import full_float32
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.records import Outcome
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
) -> list[str | None]:
    """Runs the members of `standard` in turn, each on what those before it left.

    Args:
        classifier: On `device`.
        data: The images to attack.
        threat: What is allowed.
        seed: Of all draws.
        device: Where to run.
        on_progress: Called now and then.

    Returns:
        For each image the attack that fooled it, re-checked by `zoo.evidence`, or None.
        Images that are wrong without attack count as fooled by "(clean)".
    """
    battery = build("standard", norm=threat.norm)
    work = network_work(classifier, data.shape)
    with (
        tempfile.TemporaryDirectory(prefix="robrep-") as folder,
        fitting_threads(work),
    ):
        settings = BatterySettings(seed=seed, device=device)
        examples = run_battery(
            classifier,
            data,
            threat,
            battery,
            settings=settings,
            folder=Path(folder),
            on_progress=lambda _: on_progress(),
        ).examples
    found: list[str | None] = [
        None if label == guess else "(clean)"
        for label, guess in zip(examples.label, examples.clean_prediction, strict=True)
    ]
    for name, column in examples.outcomes.items():
        for row, outcome in enumerate(column):
            if outcome is Outcome.FOOLED:
                found[row] = name
    return found
