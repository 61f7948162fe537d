"""The table of attacks: what may be written after --attacks, and what makes it.

Listing it imports no torch. Other packages add rows by the entry point group
`robrep.attacks`, whose entries name an `AttackInfo`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError, nearest

if TYPE_CHECKING:
    from robrep_eval.attacks.base import Attack
    from robrep_eval.attacks.noise import Randomness
    from zoo.threat import Norm

GROUP = "robrep.attacks"


@dataclass(frozen=True, kw_only=True)
class AttackInfo:
    """One row: an attack, or a list of attacks, by the word that stands for it."""

    name: str
    """In small letters. "head:ARGUMENT" stands for every word that begins "head:"."""
    build: str
    """"module:attribute": an `Attack`, or a function from a `Choice` to a list of
    them."""
    summary: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was asked for."""

    name: str
    """As written, in small letters."""
    engine: str
    """ "robrep", or "reference" for pyautoattack."""
    norm: Norm
    randomness: Randomness
    """Of robrep's engine."""


_AUTOATTACK = "robrep_eval.attacks.autoattack:chosen"
_ART = "robrep_eval.attacks.external"
_BUILT_IN = {
    "standard": (_AUTOATTACK, "AutoAttack: apgd-ce, apgd-t, fab-t, square"),
    "fast": (
        "robrep_eval.attacks.fast:chosen",
        "rounds of APGD, more the nearer a boundary, FAB and Square; not AutoAttack",
    ),
    "quick": (
        "robrep_eval.attacks.quick:chosen",
        "two short attacks for model selection; not AutoAttack",
    ),
    "full": (
        "robrep_eval.attacks.battery:full",
        "standard, the ART attacks and displacement, each on all images",
    ),
    "plus": (_AUTOATTACK, "AutoAttack with more attacks and restarts"),
    "rand": (
        _AUTOATTACK,
        "AutoAttack for randomised classifiers (averages gradients)",
    ),
    "apgd-ce": (_AUTOATTACK, "APGD on the cross-entropy, as in standard"),
    "apgd-dlr": (_AUTOATTACK, "APGD on the difference of logits ratio"),
    "apgd-t": (_AUTOATTACK, "APGD towards the nine likeliest classes, as in standard"),
    "fab": (_AUTOATTACK, "FAB, untargeted, from five starts"),
    "fab-t": (_AUTOATTACK, "FAB towards the nine likeliest classes, as in standard"),
    "square": (_AUTOATTACK, "5000 queries of the Square attack, as in standard"),
    "pgd": (f"{_ART}:PGD", "40 steps of PGD, 5 random starts (ART)"),
    "fgsm": (f"{_ART}:FGSM", "one gradient step (ART)"),
    "cw": (f"{_ART}:CW", "Carlini & Wagner L2, projected into the ball (ART)"),
    "deepfool": (f"{_ART}:DEEPFOOL", "DeepFool, projected into the ball (ART)"),
    "hopskipjump": (
        f"{_ART}:HOPSKIPJUMP",
        "HopSkipJump, decisions only (ART; Linf and L2)",
    ),
    "boundary": (
        f"{_ART}:BOUNDARY",
        "boundary attack, decisions only, projected into the ball (ART)",
    ),
    "universal": (
        f"{_ART}:UNIVERSAL",
        "one perturbation for all images (ART; Linf and L2)",
    ),
    "displacement": (
        "robrep_eval.attacks.displacement:DISPLACEMENT",
        "pushes features away from the clean ones, without any label",
    ),
    "transfer:zoo:NAME": (
        "robrep_eval.attacks.transfer:chosen",
        "PGD on that encoder with a linear probe, tried on this one",
    ),
    "audit:N": (
        "robrep_eval.attacks.battery:audit",
        "last: standard, on N drawn from what the others left (--audit N)",
    ),
    "none": ("robrep_eval.attacks.battery:none", "clean accuracy only"),
}
"""Name, what makes it, summary: in the order in which they are listed."""


@cache
def registry() -> dict[str, AttackInfo]:
    """All known attacks by name, those of other packages included.

    Raises:
        UserError: an entry point that cannot be imported, or is no row, or has a name
            that is taken or cannot be written after --attacks.
    """
    found = {
        name: AttackInfo(name=name, build=build, summary=summary)
        for name, (build, summary) in _BUILT_IN.items()
    }
    for entry in entry_points(group=GROUP):
        row = _row(entry)
        if row.name in found:
            raise UserError(
                f"attack '{row.name}' of entry point '{entry.value}' already exists; "
                "give it another name"
            )
        found[row.name] = row
    return found


def _row(entry: EntryPoint) -> AttackInfo:
    row = _load(entry)
    if not isinstance(row, AttackInfo):
        raise UserError(
            f"entry point '{entry.value}' of {GROUP} is a {type(row).__name__}; let it "
            "name a robrep_eval.attacks.registry.AttackInfo"
        )
    if row.name != row.name.strip().lower() or "," in row.name or not row.name:
        raise UserError(
            f"attack '{row.name}' of entry point '{entry.value}' could not be named "
            "after --attacks; use small letters, without commas and outer spaces"
        )
    return row


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # another package's code: it may raise anything
        raise UserError(
            f"attack '{entry.name}': '{entry.value}' cannot be imported "
            f"({type(error).__name__}: {error}); mend or uninstall its package"
        ) from error


def known() -> list[str]:
    """Names that can be written as they stand: those without an argument."""
    return [name for name in registry() if ":" not in name]


def attacks(choice: Choice) -> list[Attack]:
    """What one word stands for.

    Raises:
        UserError: an unknown name (with the nearest).
    """
    head, colon, _ = choice.name.partition(":")
    for name, row in registry().items():
        if name == choice.name or (colon and name.startswith(f"{head}:")):
            made = _load(EntryPoint(name=name, value=row.build, group=GROUP))
            return list(made(choice)) if callable(made) else [made]
    raise UserError(
        f"unknown attack '{choice.name}'; {nearest(choice.name, registry())}"
    )
