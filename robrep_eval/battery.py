"""Batteries: named lists of attacks, and what people write after --attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from robrep_eval.attacks.base import Attack
from zoo.errors import UserError, nearest


@dataclass(frozen=True)
class Battery:
    """A list of attacks, in order, under the name that the result carries."""

    name: str
    engine: str
    attacks: tuple[Attack, ...]


ENGINES = ("reference",)


def _reference(version: str) -> Callable[[], list[Attack]]:
    def build() -> list[Attack]:
        from robrep_eval.attacks.reference import MEMBERS, ReferenceAttack

        chosen = version
        return [
            ReferenceAttack(member=member, version=chosen)  # type: ignore[arg-type]
            for member in MEMBERS[chosen]  # type: ignore[index]
        ]

    return build


def _pgd() -> list[Attack]:
    from robrep_eval.attacks.external import ArtPgd

    return [ArtPgd()]


def _fgsm() -> list[Attack]:
    from robrep_eval.attacks.external import ArtFgsm

    return [ArtFgsm()]


KNOWN: dict[str, Callable[[], list[Attack]]] = {
    "standard": _reference("standard"),
    "plus": _reference("plus"),
    "rand": _reference("rand"),
    "pgd": _pgd,
    "fgsm": _fgsm,
    "none": list,
}
"""Names of attacks and of lists of attacks."""

SUMMARIES = {
    "standard": "AutoAttack: apgd-ce, apgd-t, fab-t, square",
    "plus": "AutoAttack with more attacks and restarts",
    "rand": "AutoAttack for randomised classifiers (averages gradients)",
    "pgd": "40 steps of PGD, 5 random starts (ART)",
    "fgsm": "one gradient step (ART)",
    "none": "clean accuracy only",
}


def build(names: str | Sequence[str], engine: str = "reference") -> Battery:
    """Reads "standard" or "standard,pgd,fgsm" into a battery.

    Raises:
        UserError: an unknown name (with the nearest), or an attack named twice.
    """
    wanted = names.split(",") if isinstance(names, str) else list(names)
    wanted = [name.strip().lower() for name in wanted if name.strip()]
    if engine not in ENGINES:
        raise UserError(f"unknown engine '{engine}'; {nearest(engine, ENGINES)}")
    attacks: list[Attack] = []
    for name in wanted:
        if name not in KNOWN:
            raise UserError(f"unknown attack '{name}'; {nearest(name, KNOWN)}")
        attacks += KNOWN[name]()
    labels = [attack.name for attack in attacks]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise UserError(f"attack '{min(twice)}' is named twice in {','.join(wanted)}")
    return Battery(",".join(wanted), engine, tuple(attacks))
