"""What the name of a battery means: its attacks, in order, with their parameters.

Whoever reads a result can tell from this table, without any attack code, whether the
attacks that it lists are those of the battery that it names. `robrep_eval` builds the
attacks; a test holds both to the same. What is published under a name stays: a change
of a battery's attacks is a new name. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from zoo import two_phases
from zoo.records import AttackRun, Result
from zoo.threat import Norm
from zoo.two_phases import WORD
from zoo.verdicts import attackable, attacked

CUSTOM = "custom"
"""What a battery is called whose name says nothing about its attacks."""
NONE = "none"
"""No attack: every correct image stands, and its robust figure says nothing."""
ROBREP, PYAUTOATTACK, ART = "robrep", "pyautoattack", "art"
"""Whose code an attack is."""
PACKAGES = {ART: "adversarial-robustness-toolbox"}
"""Whose names differ from what results call them."""
REPLAYED = "robrep (official-rng)"
"""robrep's engine on the reference's random draws."""
NETWORKS = ("a folded copy", "a copy", "the classifier itself")
"""What robrep's engine may have asked for its proposals."""
Parameters = dict[str, Any]


class Member(NamedTuple):
    """One attack of a battery."""

    name: str
    code: str
    parameters: Parameters
    sequence: bool = True


VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
"""AutoAttack (Croce & Hein 2020, arXiv 2003.01690; 2021, 2103.01208 for L1)."""
TARGETS = {"targets": 9, "ranking": "logit"}
APGD = {"steps": 100, "restarts": 1, "averaged": 1, "larger_radii": False}
AUTOATTACK: dict[str, Parameters] = {
    "apgd-ce": {**APGD, "loss": "ce"},
    "apgd-dlr": {**APGD, "loss": "dlr"},
    "apgd-t": {**APGD, **TARGETS, "loss": "dlr-targeted"},
    "fab": {"steps": 100, "restarts": 5},
    "fab-t": {"steps": 100, "restarts": 1, **TARGETS},
    "square": {"steps": 5000, "restarts": 1},
}
MORE: dict[tuple[str, str], Parameters] = {
    ("plus", "apgd-ce"): {"restarts": 5},
    ("plus", "apgd-dlr"): {"restarts": 5},
    ("rand", "apgd-ce"): {"averaged": 20},
    ("rand", "apgd-dlr"): {"averaged": 20},
}
"""What a version does otherwise than the standard one."""
SPARSE: dict[str, Parameters] = {
    "apgd-ce": {"restarts": 5, "larger_radii": True},
    "apgd-dlr": {"restarts": 5, "larger_radii": True},
    "apgd-t": {"targets": 5, "larger_radii": True},
}
"""What the standard version does otherwise in L1."""
QUICK: dict[str, Parameters] = {
    "quick-margin": {**APGD, "steps": 50, "restarts": 2, "loss": "probability-margin"},
    "quick-t": {
        **APGD,
        "steps": 60,
        "targets": 6,
        "ranking": "malt",
        "near": 0.3,
        "loss": "dlr-targeted",
    },
}
MARGIN: Parameters = {**APGD, "loss": "probability-margin"}
MET: Parameters = {"ranking": "met"}
AIMED: Parameters = {**APGD, **MET, "loss": "dlr-targeted"}
FAST_ROUNDS: dict[str, Parameters] = {
    "margin-clean": {**MARGIN, "near": None, "steps": 20, "start": "clean"},
    "ce-uniform": {**APGD, "near": None, "steps": 20, "loss": "ce"},
    "margin-stripes": {
        **MARGIN,
        "near": 0.8,
        "steps": 25,
        "restarts": 2,
        "start": "stripes",
    },
    "margin-diversified": {**MARGIN, "near": 0.5, "steps": 25, "start": "diversified"},
    "targets-3": {**AIMED, "near": 0.35, "steps": 40, "targets": 3, "start": "stripes"},
    "targets-9": {**AIMED, "near": 0.15, "steps": 50, "targets": 9},
    "margin-long": {**MARGIN, "near": 0.08, "restarts": 4, "start": "diversified"},
    "fab-t": {**MET, "near": 0.08, "steps": 60, "restarts": 1, "targets": 9},
}
"""Of `fast`, in order; "near" is the largest share of its clean margin that an image
may have kept to be in the round."""
SINGLE: dict[str, tuple[str, Parameters]] = {
    "pgd": (
        ART,
        {
            "steps": 40,
            "restarts": 5,
            "relative_step": 0.1,
            "loss": "cross-entropy",
            "start": "uniform in the ball",
        },
    ),
    "fgsm": (ART, {"loss": "cross-entropy", "start": "the clean image"}),
    "cw": (
        ART,
        {
            "class": "CarliniL2Method",
            "learning_rate": 0.05,
            "binary_search_steps": 4,
            "max_iter": 100,
            "initial_const": 1.0,
            "max_halving": 2,
            "max_doubling": 2,
        },
    ),
    "deepfool": (
        ART,
        {"class": "DeepFool", "max_iter": 50, "nb_grads": 10, "epsilon": 0.02},
    ),
    "hopskipjump": (
        ART,
        {
            "class": "HopSkipJump",
            "max_iter": 30,
            "max_eval": 1000,
            "init_eval": 50,
            "init_size": 100,
        },
    ),
    "boundary": (
        ART,
        {
            "class": "BoundaryAttack",
            "targeted": False,
            "max_iter": 300,
            "num_trial": 10,
            "sample_size": 10,
            "delta": 0.05,
            "epsilon": 0.05,
        },
    ),
    "universal": (
        ART,
        {
            "class": "UniversalPerturbation",
            "attacker": "fgsm",
            "delta": 0.01,
            "max_iter": 5,
            "eps": "1 eps",
        },
    ),
    "displacement": (
        ROBREP,
        {
            "steps": 50,
            "restarts": 2,
            "relative_step": 0.25,
            "objective": "squared L2 distance of features",
            "start": "uniform in the ball",
        },
    ),
}
"""Attacks on every image that is correct when clean."""
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


def members(word: str, engine: str, norm: Norm) -> list[Member] | None:
    """The attacks that a word after --attacks stands for; None: not one of robrep's.

    Args:
        word: "standard", "apgd-ce", ...
        engine: As a result names it: "robrep", "robrep (official-rng)", "reference".
        norm: Of the threat model.
    """
    engine = "reference" if engine == "reference (official-rng)" else engine
    if engine not in (ROBREP, REPLAYED, "reference"):
        return None
    if word == NONE:
        return []
    if word == "full":
        parts = (members(each, engine, norm) or [] for each in FULL)
        return [member._replace(sequence=False) for part in parts for member in part]
    if WORD.fullmatch(word) and engine == ROBREP:
        return members(two_phases.STRONGER, engine, norm)
    if word in SINGLE:
        return [Member(word, *SINGLE[word], sequence=False)]
    if word in OWN and engine != "reference":
        return OWN[word](engine, norm)
    return _autoattack(word, engine, norm)


def _autoattack(word: str, engine: str, norm: Norm) -> list[Member] | None:
    version = word if word in VERSIONS else "standard"
    names = VERSIONS.get(word, (word,) if word in AUTOATTACK else None)
    if names is None:
        return None
    if engine == "reference":
        settings = {
            "version": "plus" if word == "fab" else version,
            "batch": "the survivors of the chunk",
        }
        return [Member(name, PYAUTOATTACK, settings) for name in names]
    sparse = SPARSE if (norm, version) == ("L1", "standard") else {}
    return [
        Member(
            name,
            ROBREP,
            AUTOATTACK[name]
            | MORE.get((version, name), {})
            | sparse.get(name, {})
            | _randomness(engine),
        )
        for name in names
    ]


def _quick(engine: str, norm: Norm) -> list[Member]:
    start = {"larger_radii": True} if norm == "L1" else {"start": "stripes"}
    return [
        Member(name, ROBREP, settings | start | _randomness(engine))
        for name, settings in QUICK.items()
    ]


def _fast(engine: str, norm: Norm) -> list[Member]:
    rounds = [
        {"attack": name, **(_sparse(settings) if norm == "L1" else settings)}
        for name, settings in FAST_ROUNDS.items()
    ]
    drawn = _randomness(engine)
    square = {"steps": 300, "restarts": 1, **drawn}
    return [
        Member("fast-rounds", ROBREP, {"rounds": rounds, **drawn}),
        Member("fast-square", ROBREP, square),
    ]


def _sparse(settings: Parameters) -> Parameters:
    """Of APGD in L1, where a start is sparse."""
    if "larger_radii" not in settings:
        return settings
    kept = {name: value for name, value in settings.items() if name != "start"}
    return kept | {"larger_radii": True}


OWN = {"quick": _quick, "fast": _fast}
"""Batteries of robrep's own, which the reference has not."""


def _randomness(engine: str) -> Parameters:
    return {"randomness": "official-rng" if engine == REPLAYED else "per-example"}


def meaning(result: Result) -> list[Member] | None:
    """The attacks that the result's battery stands for; None: its name is not one that
    robrep gives."""
    words = result.battery.split(",")
    if "none" in words[1:] or (words[0] == "none" and len(words) > 1):
        return None  # another spelling of the rest
    found = [members(word, result.engine, result.threat.norm) for word in words]
    if None in found:
        return None
    if any(WORD.fullmatch(word) for word in words[:-1]) or WORD.fullmatch(words[0]):
        return None  # an audit is of what the words before it left
    return [member for part in found if part for member in part]


def fault(result: Result) -> str | None:
    """How the attacks listed differ from those of the named battery; None: they do not,
    or the name is not one that robrep gives."""
    wanted = meaning(result)
    if wanted is None:
        return None
    names = [run.name for run in result.attacks]
    if names != [member.name for member in wanted]:
        return (
            f"battery '{result.battery}' ({result.engine}) is "
            f"{_listed([member.name for member in wanted])}, not {_listed(names)}"
        )
    for run, member in zip(result.attacks, wanted, strict=True):
        for what, (stated, meant) in _compared(result, run, member).items():
            if stated != meant:
                return (
                    f"{what} of {run.name} in battery '{result.battery}' "
                    f"({result.engine}): stated {stated}, but there it is {meant}"
                )
    return None


def _compared(
    result: Result, run: AttackRun, member: Member
) -> dict[str, tuple[object, object]]:
    made, version = result.provenance, run.engine.partition(" ")[2]
    versions = {ROBREP: made.robrep, **made.versions}
    meant = versions.get(PACKAGES.get(member.code, member.code), version)
    return {
        "the code": (run.engine, f"{member.code} {meant}"),
        "sequence": (run.sequence, member.sequence),
        "parameters": (_settings(run), member.parameters),
    }


def _settings(run: AttackRun) -> Parameters:
    """An attack's parameters, less which network it asked for its proposals: that is
    found when it runs, and proposals are checked on the classifier itself."""
    network = run.parameters.get("network")
    return {
        name: value
        for name, value in run.parameters.items()
        if name != "network" or network not in NETWORKS
    }


def misattacked(result: Result) -> str | None:
    """Name of the first attack that was not on exactly the images that those before it
    left standing (in a sequence), that were drawn for an audit, or that are correct
    when clean; None: all were."""
    names = [run.name for run in result.attacks]
    sequence = [run.sequence for run in result.attacks]
    examples = result.examples
    for at, name in enumerate(names):
        found = attacked(examples, name)
        meant = attackable(examples, names, sequence, at)
        if result.audit and name in result.audit.attacks:
            meant &= two_phases.sample(result)
        if not np.array_equal(found, meant):
            return name
    return None


def shown(result: Result) -> str:
    """The battery as rankings name it: `CUSTOM` unless the name is one that robrep
    gives, and the attacks are those that it stands for, on the images they belong on.
    """
    checks: tuple[Callable[[Result], object], ...] = (
        fault,
        misattacked,
        two_phases.fault,
    )
    known = meaning(result) is not None and _complete(result)
    return result.battery if known and not any(c(result) for c in checks) else CUSTOM


def _complete(result: Result) -> bool:
    return {run.name for run in result.attacks} == result.examples.outcomes.keys()


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "no attack"
