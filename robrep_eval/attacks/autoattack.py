"""AutoAttack: its versions and their members, on robrep's engine or by the reference.

Source of the settings: Croce & Hein 2020, arXiv 2003.01690, and 2021, arXiv
2103.01208 (L1), as in the authors' published implementation.
"""

from __future__ import annotations

from collections.abc import Sequence

from robrep_eval.attacks.apgd import ApgdAttack
from robrep_eval.attacks.base import Attack
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.fab import FabAttack
from robrep_eval.attacks.noise import Randomness
from robrep_eval.attacks.reference import Member, ReferenceAttack, Version
from robrep_eval.attacks.registry import Choice
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.attacks.targets import Targets
from zoo.threat import Norm

VERSIONS: dict[Version, tuple[Member, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
EOT_PASSES = 20


def chosen(choice: Choice) -> Sequence[Attack]:
    """The members of a version, or one member."""
    if choice.engine == "reference":
        return _reference(choice.name)
    return members(choice.name, choice.norm, choice.randomness)


def members(name: str, norm: Norm, randomness: Randomness) -> list[EngineAttack]:
    """A version on robrep's engine, or one member with the settings of standard."""
    for version, names in VERSIONS.items():
        if name == version:
            return [_member(member, version, norm, randomness) for member in names]
    return [_member(name, "standard", norm, randomness)]


def _member(
    name: str, version: Version, norm: Norm, randomness: Randomness
) -> EngineAttack:
    sparse = norm == "L1" and version == "standard"
    if name in ("apgd-ce", "apgd-dlr"):
        return ApgdAttack(
            name=name,
            loss=name.removeprefix("apgd-"),
            restarts=5 if sparse or version == "plus" else 1,
            larger_radii=sparse,
            averaged=EOT_PASSES if version == "rand" else 1,
            randomness=randomness,
        )
    if name == "apgd-t":
        return ApgdAttack(
            name=name,
            loss="dlr-targeted",
            targets=Targets(count=5 if sparse else 9),
            larger_radii=sparse,
            randomness=randomness,
        )
    if name == "fab-t":
        return FabAttack(name=name, targets=Targets(count=9), randomness=randomness)
    if name == "fab":
        return FabAttack(name=name, restarts=5, randomness=randomness)
    if name == "square":
        return SquareAttack(name=name, randomness=randomness)
    raise ValueError(f"AutoAttack has no member '{name}'")


def _reference(name: str) -> list[ReferenceAttack]:
    """A version by pyautoattack, or one member with the settings of standard; `fab`,
    which has several restarts in plus alone, with those."""
    for version, names in VERSIONS.items():
        if name == version:
            return [ReferenceAttack(member=m, version=version) for m in names]
    alone: Version = "plus" if name == "fab" else "standard"
    return [
        ReferenceAttack(member=m, version=alone) for m in VERSIONS["plus"] if m == name
    ]
