"""Attacks by the Adversarial Robustness Toolbox (ART), through its own wrapper."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robrep_eval.adapters import to_art
from robrep_eval.attacks.base import Context
from robrep_eval.randomness import seeded
from zoo.ball import project
from zoo.classifier import Classifier
from zoo.threat import ThreatModel


@cache
def engine_name() -> str:
    """Package and version, for the record."""
    return f"art {version('adversarial-robustness-toolbox')}"


def art_norm(threat: ThreatModel) -> float | int:
    """ART's name of the norm."""
    return {"Linf": np.inf, "L2": 2, "L1": 1}[threat.norm]


@dataclass(frozen=True, kw_only=True)
class ArtPgd:
    """PGD on the cross-entropy (Madry et al. 2018, arXiv 1706.06083) by ART."""

    steps: int = 40
    restarts: int = 5
    relative_step: float = 0.1
    """Length of a step as a share of eps."""
    name: str = "pgd"
    sequence: bool = False

    @property
    def engine(self) -> str:
        return engine_name()

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "restarts": self.restarts,
            "relative_step": self.relative_step,
            "loss": "cross-entropy",
            "start": "uniform in the ball",
        }

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """The best of the restarts for each image."""
        from art.attacks.evasion import ProjectedGradientDescent

        attack = ProjectedGradientDescent(
            to_art(classifier),
            norm=art_norm(threat),
            eps=threat.eps,
            eps_step=self.relative_step * threat.eps,
            max_iter=self.steps,
            num_random_init=self.restarts,
            batch_size=context.batch_size,
            verbose=False,
        )
        return generate(attack, x, y, context)


@dataclass(frozen=True, kw_only=True)
class ArtFgsm:
    """One step of size eps along the gradient (arXiv 1412.6572) by ART."""

    name: str = "fgsm"
    sequence: bool = False

    @property
    def engine(self) -> str:
        return engine_name()

    @property
    def parameters(self) -> dict[str, Any]:
        return {"loss": "cross-entropy", "start": "the clean image"}

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """One gradient per image."""
        from art.attacks.evasion import FastGradientMethod

        attack = FastGradientMethod(
            to_art(classifier),
            norm=art_norm(threat),
            eps=threat.eps,
            batch_size=context.batch_size,
        )
        return generate(attack, x, y, context)


def generate(attack: Any, x: Tensor, y: Tensor, context: Context) -> Tensor:
    """Runs an ART attack on the true labels, seeded; back to a float32 tensor."""
    with seeded(context.seed, context.device):
        found = attack.generate(x=x.numpy(), y=y.numpy())
    context.progress(1.0)
    return torch.from_numpy(np.asarray(found, dtype=np.float32))


@dataclass(frozen=True, kw_only=True)
class ArtAttack:
    """Any further attack of ART, with settings that are not toothless.

    Attacks without a radius of their own look for the nearest adversarial; what they
    find is projected into the ball and counts only if it still fools there.
    """

    name: str
    art_class: str
    """In `art.attacks.evasion`."""
    settings: Mapping[str, Any]
    """As passed to ART."""
    times_eps: Mapping[str, float] = field(default_factory=dict)
    """ART parameters that are this multiple of eps."""
    takes_norm: bool = False
    """The attack works in the norm of the threat model (Linf and L2 only)."""
    block: int | None = None
    """Images per call, between which progress is told and kept; None for all at
    once."""
    sequence: bool = False
    gradients: bool = True

    @property
    def engine(self) -> str:
        return engine_name()

    @property
    def parameters(self) -> dict[str, Any]:
        scaled = {key: f"{share:g} eps" for key, share in self.times_eps.items()}
        return {"class": self.art_class, **self.settings, **scaled}

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """What the attack finds, projected into the ball."""
        from art.attacks import evasion

        if self.takes_norm and threat.norm == "L1":
            context.note(f"{self.name}: ART has no L1 version; left out")
            return x
        more: dict[str, Any] = {
            key: share * threat.eps for key, share in self.times_eps.items()
        }
        if self.takes_norm:
            more["norm"] = art_norm(threat)
        attack = getattr(evasion, self.art_class)(
            to_art(classifier),
            batch_size=context.batch_size,
            verbose=False,
            **self.settings,
            **more,
        )
        found = self._blocks(attack, x, y, context)
        finite = torch.where(found.isfinite(), found, x)
        return project(finite, x, threat)

    def _blocks(self, attack: Any, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Block by block, going on with what a killed run had found."""
        size = self.block or len(x)
        done = context.journal.load().get("found", x[:0])
        while len(done) < len(x):
            rows = slice(len(done), len(done) + size)
            seeds = replace(context, seed=context.seed + len(done), progress=_silent)
            with quiet():
                part = generate(attack, x[rows], y[rows], seeds)
            done = torch.cat([done, part])
            context.progress(len(done) / len(x))
            if context.journal.due():
                context.journal.keep({"found": done})
        return done


def _silent(_: float) -> None:
    """A block does not know how many there are."""


PGD = ArtPgd()
FGSM = ArtFgsm()
CW = ArtAttack(
    name="cw",
    art_class="CarliniL2Method",
    settings={
        "learning_rate": 0.05,
        "binary_search_steps": 4,
        "max_iter": 100,  # ART's default of 10 finds next to nothing
        "initial_const": 1.0,
        "max_halving": 2,
        "max_doubling": 2,
    },
    block=32,
)
DEEPFOOL = ArtAttack(
    name="deepfool",
    art_class="DeepFool",
    settings={"max_iter": 50, "nb_grads": 10, "epsilon": 0.02},
    block=32,
)
HOPSKIPJUMP = ArtAttack(
    name="hopskipjump",
    art_class="HopSkipJump",
    settings={"max_iter": 30, "max_eval": 1000, "init_eval": 50, "init_size": 100},
    takes_norm=True,
    block=4,
    gradients=False,
)
BOUNDARY = ArtAttack(
    name="boundary",
    art_class="BoundaryAttack",
    settings={
        "targeted": False,  # ART's default needs target classes
        "max_iter": 300,
        "num_trial": 10,
        "sample_size": 10,
        "delta": 0.05,
        "epsilon": 0.05,
    },
    block=4,
    gradients=False,
)
UNIVERSAL = ArtAttack(
    name="universal",
    art_class="UniversalPerturbation",
    settings={
        "attacker": "fgsm",
        "delta": 0.01,  # go on until 99% are fooled, or max_iter
        "max_iter": 5,
    },
    times_eps={"eps": 1.0},  # ART's default of 10 would leave no pixel as it was
    takes_norm=True,
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences ART's own remarks, which know nothing of eps."""
    log = logging.getLogger("art")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
