"""Batteries: lists of attacks, read from what people write after --attacks.

A battery ends in the worst case over its attacks, example by example. In `standard`
each attack sees what the ones before it have left, as in AutoAttack; in `full` each
sees every image, so that its own accuracy is known as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from robrep_eval.attacks.base import Attack, needs_gradients
from robrep_eval.attacks.noise import Randomness
from robrep_eval.attacks.registry import Choice, attacks
from zoo.errors import UserError, nearest
from zoo.threat import Norm
from zoo.two_phases import STRONGER, WORD, count_of


@dataclass(frozen=True)
class Battery:
    """A list of attacks, in order, under the name that the result carries."""

    name: str
    engine: str
    """ "robrep" (with its randomness, if not the usual one) or "reference"."""
    attacks: tuple[Attack, ...]
    audited: int = 0
    """How many of the attacks, the last ones, are on a sample; see `zoo.two_phases`."""
    sample: int = 0
    """Images of that sample."""

    @property
    def before(self) -> Battery:
        """Without the attacks on a sample."""
        count = len(self.attacks) - self.audited
        return replace(self, attacks=self.attacks[:count], audited=0, sample=0)


ENGINES = ("robrep", "reference")
RANDOMNESS: tuple[Randomness, ...] = get_args(Randomness)
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


def build(
    names: str | Sequence[str],
    engine: str = "robrep",
    *,
    norm: Norm = "Linf",
    randomness: str = "per-example",
) -> Battery:
    """Reads "standard" or "standard,pgd,fgsm" into a battery.

    Args:
        names: Names in `robrep_eval.attacks.registry`, NAME in "transfer:zoo:NAME"
            being an encoder's.
        engine: "robrep", or "reference" for pyautoattack.
        norm: AutoAttack runs other restarts in L1.
        randomness: Of robrep's engine: "per-example", or "official-rng" to replay
            the reference's draws.

    Raises:
        UserError: an unknown name (with the nearest), or an attack named twice.
    """
    wanted = names.split(",") if isinstance(names, str) else list(names)
    wanted = [name.strip().lower() for name in wanted]
    if not all(wanted) or not wanted:
        raise UserError(
            f"'{','.join(wanted)}' names an attack without a name; for the clean "
            "accuracy alone write none"
        )
    if engine not in ENGINES:
        raise UserError(f"unknown engine '{engine}'; {nearest(engine, ENGINES)}")
    if randomness not in RANDOMNESS:
        raise UserError(
            f"unknown randomness '{randomness}'; {nearest(randomness, RANDOMNESS)}"
        )
    last: list[Attack] = []
    found: list[Attack] = []
    for name in wanted:
        last = attacks(
            Choice(name=name, engine=engine, norm=norm, randomness=randomness)
        )
        found += last
    labels = [attack.name for attack in found]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise UserError(f"attack '{min(twice)}' is named twice in {','.join(wanted)}")
    label = ",".join(wanted)
    _check_audit(wanted, len(found) - len(last))
    sample = count_of(label) or 0
    return Battery(
        label,
        _label(engine, randomness),
        tuple(found),
        audited=len(last) if sample else 0,
        sample=sample,
    )


def _check_audit(words: Sequence[str], before: int) -> None:
    """An audit comes last, after attacks on all images."""
    at = [i for i, word in enumerate(words) if WORD.fullmatch(word)]
    if at and (at != [len(words) - 1] or not before):
        raise UserError(
            f"'{words[at[0]]}' attacks what other attacks left: name it once, last, "
            f"and others before it, not in {','.join(words)}"
        )


def is_black_box(name: str, norm: Norm) -> bool:
    """Whether an attack never asks for a gradient of the attacked classifier.

    Args:
        name: That the attack bears in a result; one unknown here is taken to ask.
            "fast-square" is looked for in the battery `fast`.
        norm: Of the threat model.
    """
    for word in (name, name.partition("-")[0]):
        try:
            found = build(word, norm=norm).attacks
        except UserError:
            continue
        if mine := [a for a in found if a.name == name]:
            return not any(map(needs_gradients, mine))
    return False


def _label(engine: str, randomness: str) -> str:
    """The engine as the result names it; what changes verdicts is part of it."""
    return engine if randomness == RANDOMNESS[0] else f"{engine} ({randomness})"


def full(choice: Choice) -> list[Attack]:
    """Each attack of `FULL` on every image that is correct when clean."""
    return [
        replace(attack, sequence=False)  # type: ignore[type-var]
        for name in FULL
        for attack in attacks(replace(choice, name=name))
    ]


def audit(choice: Choice) -> list[Attack]:
    """`standard`, for a sample.

    Raises:
        UserError: no number of images; or draws that depend on the other images, so
            that a sample says nothing about the rest.
    """
    if not WORD.fullmatch(choice.name):
        raise UserError(f"'{choice.name}' names no number of images; write --audit 500")
    if choice.engine == "reference" or choice.randomness != RANDOMNESS[0]:
        raise UserError(
            "an audit needs draws that belong to each image alone; leave --engine and "
            "--randomness at their defaults"
        )
    return attacks(replace(choice, name=STRONGER))


def none(choice: Choice) -> list[Attack]:
    """No attack at all."""
    return []
