"""The surrogates of transfer attacks: zoo encoders with a linear probe of their own.

A surrogate sees the same training images and labels as the probe of the attacked
encoder, always by SLF; it is kept in the run folder: a resumed run goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from robrep_eval.attacks.base import Attack
from robrep_eval.attacks.battery import Battery
from robrep_eval.attacks.transfer import TransferAttack
from zoo.classifier import Classifier
from zoo.classifier_file import load_classifier, save_classifier
from zoo.collection.store import card
from zoo.datasets.base import Dataset
from zoo.errors import UserError


def check_surrogates(battery: Battery, data: Dataset) -> None:
    """Raises `UserError` if a surrogate takes images of another shape."""
    for reference in references(battery):
        shape = card(reference.removeprefix("zoo:")).shape
        if shape != data.shape:
            raise UserError(
                f"cannot transfer from {reference}: it takes images of shape {shape}, "
                f"but {data.name} has {data.shape}"
            )


def references(battery: Battery) -> list[str]:
    """Those that the battery names and that are not fitted yet."""
    return [
        attack.reference
        for attack in battery.attacks
        if isinstance(attack, TransferAttack) and attack.surrogate is None
    ]


def with_surrogates(
    battery: Battery,
    place: Callable[[str], Path],
    fit: Callable[[str], Classifier],
) -> Battery:
    """The battery with every surrogate fitted, or read where a run left it.

    Args:
        battery: As `robrep_eval.attacks.battery.build` returns it.
        place: File of a surrogate, by reference.
        fit: Makes the classifier of a reference.
    """

    def armed(attack: Attack) -> Attack:
        if not isinstance(attack, TransferAttack) or attack.surrogate is not None:
            return attack
        path = place(attack.reference)
        if not path.exists():
            save_classifier(fit(attack.reference), path)
        return replace(attack, surrogate=load_classifier(path))

    return replace(battery, attacks=tuple(armed(attack) for attack in battery.attacks))
