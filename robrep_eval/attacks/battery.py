"""Batteries: named lists of attacks, and what people write after --attacks.

A battery ends in the worst case over its attacks, example by example. In `standard`
each attack sees what the ones before it have left, as in AutoAttack; in `full` each
sees every image, so that its own accuracy is known as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from robrep_eval.attacks.noise import Randomness
from zoo.errors import UserError, nearest
from zoo.threat import Norm

if TYPE_CHECKING:
    from robrep_eval.attacks.base import Attack


@dataclass(frozen=True)
class Battery:
    """A list of attacks, in order, under the name that the result carries."""

    name: str
    engine: str
    """ "robrep" (with its randomness, if not the usual one) or "reference"."""
    attacks: tuple[Attack, ...]


ENGINES = ("robrep", "reference")
RANDOMNESS: tuple[Randomness, ...] = get_args(Randomness)

SUMMARIES = {
    "standard": "AutoAttack: apgd-ce, apgd-t, fab-t, square",
    "quick": "two short attacks for model selection; not AutoAttack",
    "full": "standard, the ART attacks and displacement, each on all images",
    "plus": "AutoAttack with more attacks and restarts",
    "rand": "AutoAttack for randomised classifiers (averages gradients)",
    "apgd-ce": "APGD on the cross-entropy, as in standard",
    "apgd-dlr": "APGD on the difference of logits ratio",
    "apgd-t": "APGD towards the nine likeliest classes, as in standard",
    "fab": "FAB, untargeted, from five starts",
    "fab-t": "FAB towards the nine likeliest classes, as in standard",
    "square": "5000 queries of the Square attack, as in standard",
    "pgd": "40 steps of PGD, 5 random starts (ART)",
    "fgsm": "one gradient step (ART)",
    "cw": "Carlini & Wagner L2, projected into the ball (ART)",
    "deepfool": "DeepFool, projected into the ball (ART)",
    "hopskipjump": "HopSkipJump, decisions only (ART; Linf and L2)",
    "boundary": "boundary attack, decisions only, projected into the ball (ART)",
    "universal": "one perturbation for all images (ART; Linf and L2)",
    "displacement": "pushes features away from the clean ones, without any label",
    "transfer:zoo:NAME": "PGD on that encoder with a linear probe, tried on this one",
    "none": "clean accuracy only",
}
"""Names of attacks and of lists of attacks."""
FULL = (
    "standard",
    "pgd",
    "cw",
    "deepfool",
    "hopskipjump",
    "boundary",
    "universal",
    "displacement",
)
"""What `full` is made of, cheap attacks mixed with dear ones."""
TRANSFER = "transfer:"
KNOWN = tuple(name for name in SUMMARIES if not name.startswith(TRANSFER))


def build(
    names: str | Sequence[str],
    engine: str = "robrep",
    *,
    norm: Norm = "Linf",
    randomness: str = "per-example",
) -> Battery:
    """Reads "standard" or "standard,pgd,fgsm" into a battery.

    Args:
        names: Names in `SUMMARIES`, NAME in "transfer:zoo:NAME" being an encoder's.
        engine: "robrep", or "reference" for pyautoattack.
        norm: AutoAttack runs other restarts in L1.
        randomness: Of robrep's engine: "per-example", or "official-rng" to replay
            the reference's draws.

    Raises:
        UserError: an unknown name (with the nearest), or an attack named twice.
    """
    wanted = names.split(",") if isinstance(names, str) else list(names)
    wanted = [name.strip().lower() for name in wanted if name.strip()]
    if engine not in ENGINES:
        raise UserError(f"unknown engine '{engine}'; {nearest(engine, ENGINES)}")
    if randomness not in RANDOMNESS:
        raise UserError(
            f"unknown randomness '{randomness}'; {nearest(randomness, RANDOMNESS)}"
        )
    attacks: list[Attack] = []
    for name in wanted:
        attacks += _named(name, engine, norm, randomness)
    labels = [attack.name for attack in attacks]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise UserError(f"attack '{min(twice)}' is named twice in {','.join(wanted)}")
    return Battery(",".join(wanted), _label(engine, randomness), tuple(attacks))


def _label(engine: str, randomness: str) -> str:
    """The engine as the result names it; what changes verdicts is part of it."""
    return engine if randomness == RANDOMNESS[0] else f"{engine} ({randomness})"


def _named(name: str, engine: str, norm: Norm, randomness: Randomness) -> list[Attack]:
    """What one word stands for."""
    if name == "full":
        parts = [_named(part, engine, norm, randomness) for part in FULL]
        return [_alone(attack) for part in parts for attack in part]
    if name.startswith(TRANSFER):
        return [_transfer(name)]
    if name not in KNOWN:
        raise UserError(f"unknown attack '{name}'; {nearest(name, SUMMARIES)}")
    others = _same_under_every_engine()
    if name in others:
        return others[name]
    if engine == "reference":
        return _reference(name)
    return _own(name, norm, randomness)


def _alone(attack: Attack) -> Attack:
    """The same attack on every image that is correct when clean."""
    return replace(attack, sequence=False)  # type: ignore[type-var]


def _transfer(name: str) -> Attack:
    """From "transfer:zoo:NAME"; the source is fitted when the run begins."""
    from robrep_eval.attacks.transfer import TransferAttack
    from zoo.collection.store import names

    reference = name.removeprefix(TRANSFER)
    encoder = reference.removeprefix("zoo:")
    if not encoder or encoder == reference:
        raise UserError(
            f"'{reference}' is no encoder of the zoo to transfer from; write "
            "--transfer-from zoo:NAME, or transfer:zoo:NAME among the attacks"
        )
    if encoder not in names():
        raise UserError(
            f"no encoder '{encoder}' in the zoo to transfer from; "
            f"{nearest(encoder, names())}"
        )
    return TransferAttack(reference=reference, name=name)


def _same_under_every_engine() -> dict[str, list[Attack]]:
    """Attacks of other packages, and those that AutoAttack has no counterpart of."""
    from robrep_eval.attacks import external
    from robrep_eval.attacks.displacement import DisplacementAttack

    return {
        "pgd": [external.ArtPgd()],
        "fgsm": [external.ArtFgsm()],
        "cw": [external.CW],
        "deepfool": [external.DEEPFOOL],
        "hopskipjump": [external.HOPSKIPJUMP],
        "boundary": [external.BOUNDARY],
        "universal": [external.UNIVERSAL],
        "displacement": [DisplacementAttack()],
        "none": [],
    }


def _reference(name: str) -> list[Attack]:
    """The members of pyautoattack's versions, or one member as in standard or plus."""
    from robrep_eval.attacks.reference import MEMBERS, ReferenceAttack

    if name == "quick":
        raise UserError("the reference has no battery 'quick'; use --engine robrep")
    for version, members in MEMBERS.items():
        if name == version:
            return [ReferenceAttack(member=m, version=version) for m in members]
    version = "standard" if name in MEMBERS["standard"] else "plus"
    return [ReferenceAttack(member=name, version=version)]  # type: ignore[arg-type]


def _own(name: str, norm: Norm, randomness: Randomness) -> list[Attack]:
    """Members on robrep's engine, with AutoAttack's settings."""
    from robrep_eval.attacks.own import members

    return list(members(name, norm, randomness))
