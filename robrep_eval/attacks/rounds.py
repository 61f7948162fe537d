"""Several short attacks in rounds, each on those images that are worth it.

What a round met decides who sees the next: an image stays while its least margin is
small beside its clean one. That is a rule for each image by itself, where A3 (Liu et
al. 2022, arXiv 2203.05154) keeps a share of all: an outcome then depends neither on the
batch nor on the other images.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.noise import Randomness
from robrep_eval.attacks.pool import Journal, State
from robrep_eval.attacks.prepared import prepare
from robrep_eval.attacks.problem import physical_batch
from robrep_eval.attacks.runs import Runs
from zoo._version import __version__
from zoo.classifier import Classifier
from zoo.margins import margin
from zoo.threat import ThreatModel

INNER = "round."
"""Before the names of what a round keeps in the journal."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One attack, and for which images."""

    attack: EngineAttack
    near: float | None = None
    """Only for images whose least margin in the rounds before was at most this share
    of the clean one; None: for all that are left."""


@dataclass(frozen=True, kw_only=True)
class RoundsAttack:
    """Rounds in order; see `robrep_eval.attacks.base.Attack`."""

    name: str
    rounds: tuple[Round, ...]
    randomness: Randomness = "per-example"
    sequence: bool = True
    engine: str = field(default=f"robrep {__version__}", init=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """What is in force, JSON-ready."""
        return {
            "randomness": self.randomness,
            "rounds": [
                {"attack": each.attack.name, "near": each.near}
                | {k: v for k, v in each.attack.parameters.items() if k != "randomness"}
                for each in self.rounds
            ],
        }

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """See `Attack.propose`; rows that held are the clean images."""
        return _Course(self, classifier, x, y, threat, context).all()


class _Course:
    """The rounds on one set of examples."""

    def __init__(
        self,
        attack: RoundsAttack,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> None:
        self.attack = attack
        self.classifier = classifier
        self.x, self.y = x, y
        self.threat = threat
        self.context = context
        exact = attack.randomness == "official-rng"
        model = prepare(classifier, exact=exact)
        images = x.to(context.device)
        logits = model.logits(images, physical_batch(images, context.batch_size)).cpu()
        self.clean = margin(logits, y)
        # As if the clean image had been met: its logits rank the classes.
        self.gaps = (logits.gather(1, y.unsqueeze(1)) - logits).float()
        self.left = torch.ones(len(y), dtype=torch.bool)
        self.unclear = torch.zeros(len(y), dtype=torch.bool)
        self.proposals = x.clone().cpu()

    def all(self) -> Tensor:
        """Every round in turn; returns the proposals (n, C, H, W)."""
        saved = self.context.journal.load()
        first = int(saved["number"]) if saved else 0
        if saved:
            self.gaps, self.left = saved["all.gaps"], saved["all.left"]
            self.proposals, self.unclear = saved["all.proposals"], saved["all.unclear"]
        for number in range(first, len(self.attack.rounds)):
            rows = self._worth(self.attack.rounds[number].near)
            if len(rows):
                self._round(number, rows, saved if number == first else {})
        if bool(self.unclear.any()):
            self.context.undecided(self.unclear.nonzero().flatten())
        self.context.progress(1.0)
        return self.proposals

    def _worth(self, near: float | None) -> Tensor:
        """Rows that the next round is for, ascending (k,)."""
        if near is None:
            return self.left.nonzero().flatten()
        own = self.y.unsqueeze(1)
        least = self.gaps.scatter(1, own, torch.inf).amin(dim=1)
        return (self.left & (least <= near * self.clean)).nonzero().flatten()

    def _round(self, number: int, rows: Tensor, saved: State) -> None:
        runs = Runs(
            self.attack.rounds[number].attack,
            self.classifier,
            self.x[rows],
            self.y[rows],
            self.threat,
            self._context(number, rows, saved),
            self.gaps[rows],
        )
        proposals = runs.all()
        fooled = runs.fooled
        self.proposals[rows[fooled]] = proposals[fooled]
        self.left &= ~self.unclear
        self.left[rows[fooled]] = False
        if runs.gaps is not None:
            self.gaps[rows] = runs.gaps

    def _context(self, number: int, rows: Tensor, saved: State) -> Context:
        """What the attack of a round is told."""
        outer, total = self.context, len(self.attack.rounds)

        def undecided(at: Tensor) -> None:
            self.unclear[rows[at]] = True

        return replace(
            outer,
            ids=outer.ids[rows],
            progress=lambda share: outer.progress((number + share) / total),
            undecided=undecided,
            journal=self._journal(number, saved),
        )

    def _journal(self, number: int, saved: State) -> Journal:
        keep = self.context.journal.save

        def save(state: State) -> None:
            assert keep is not None
            keep(
                {INNER + name: column for name, column in state.items()}
                | {
                    "number": torch.tensor(number),
                    "all.gaps": self.gaps,
                    "all.left": self.left,
                    "all.unclear": self.unclear,
                    "all.proposals": self.proposals,
                }
            )

        inner = {k[len(INNER) :]: v for k, v in saved.items() if k.startswith(INNER)}
        return Journal(
            load=lambda: inner,
            save=None if keep is None else save,
            seconds=self.context.journal.seconds,
        )
