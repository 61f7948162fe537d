"""AutoAttack's members and `quick`, as settings of the engine's attacks.

Source of the settings: Croce & Hein 2020, arXiv 2003.01690, and 2021, arXiv
2103.01208 (L1), as in the authors' published implementation.
"""

from __future__ import annotations

from typing import Literal

from robrep_eval.attacks.members import EngineAttack
from robrep_eval.attacks.noise import Randomness
from zoo.threat import Norm

VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    "quick": ("quick-margin", "quick-t"),
}
EOT_PASSES = 20


def members(name: str, norm: Norm, randomness: Randomness) -> list[EngineAttack]:
    """The attacks of a battery, or one attack as its battery runs it."""
    names = VERSIONS.get(name, (name,))
    version = name if name in VERSIONS else "standard"
    return [_member(member, version, norm, randomness) for member in names]


def _member(
    name: str, version: str, norm: Norm, randomness: Randomness
) -> EngineAttack:
    sparse = norm == "L1" and version == "standard"
    restarts = 5 if sparse or version == "plus" else 1
    if name in ("apgd-ce", "apgd-dlr"):
        return EngineAttack(
            name=name,
            family="apgd",
            loss=name.removeprefix("apgd-"),
            restarts=restarts,
            larger_radii=sparse,
            averaged=EOT_PASSES if version == "rand" else 1,
            randomness=randomness,
        )
    if name == "apgd-t":
        return EngineAttack(
            name=name,
            family="apgd",
            loss="dlr-targeted",
            targets=5 if sparse else 9,
            larger_radii=sparse,
            randomness=randomness,
        )
    if name == "fab-t":
        return EngineAttack(name=name, family="fab", targets=9, randomness=randomness)
    if name == "fab":
        return EngineAttack(name=name, family="fab", restarts=5, randomness=randomness)
    if name == "square":
        return EngineAttack(
            name=name, family="square", steps=5000, randomness=randomness
        )
    return _quick(name, norm, randomness)


def _quick(name: str, norm: Norm, randomness: Randomness) -> EngineAttack:
    """Few passes, spent where they may matter.

    Two short attacks on the margin of probabilities, then the nearest classes; after
    the first of them only for examples that it brought close to the boundary. All start
    in stripes, which find images that AutoAttack's gradients miss (docs/engine.md).
    """
    start: Literal["random", "stripes"] = "random" if norm == "L1" else "stripes"
    if name == "quick-margin":
        return EngineAttack(
            name=name,
            family="apgd",
            loss="probability-margin",
            steps=50,
            restarts=2,
            start=start,
            larger_radii=norm == "L1",
            randomness=randomness,
        )
    return EngineAttack(
        name=name,
        family="apgd",
        loss="dlr-targeted",
        steps=60,
        targets=6,
        ranking="malt",
        near=0.3,
        start=start,
        larger_radii=norm == "L1",
        randomness=randomness,
    )
