"""The members of the batteries: AutoAttack's four and its kin, on the fast engine.

An attack is a sequence of runs, one per restart or target; each run takes the examples
that the runs before it left standing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from robrep_eval.attacks import losses
from robrep_eval.attacks.apgd import Apgd
from robrep_eval.attacks.apgd_l1 import ApgdL1
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.fab import Fab
from robrep_eval.attacks.noise import Noise, source
from robrep_eval.attacks.pool import Pool, Program, State
from robrep_eval.attacks.problem import Model, Problem, physical_batch, prepare
from robrep_eval.attacks.square import SquareLinf
from robrep_eval.attacks.square_windows import SquareWindows
from robrep_eval.battery import Randomness
from zoo._version import __version__
from zoo.classifier import Classifier
from zoo.threat import ThreatModel

Family = Literal["apgd", "fab", "square"]
LOSSES: dict[str, losses.Loss] = {
    "ce": losses.cross_entropy,
    "dlr": losses.dlr,
    "dlr-targeted": losses.targeted_dlr,
    "probability-margin": losses.probability_margin,
}
TELL_SECONDS = 0.5
"""Between reports of progress."""
MALT_CANDIDATES = 20
"""Classes of the highest logits that are ranked by their linearised distance."""


@dataclass(frozen=True, kw_only=True)
class EngineAttack:
    """One attack; see `robrep_eval.attacks.base.Attack`."""

    name: str
    family: Family
    loss: str = ""
    """Of APGD: a name in `LOSSES`."""
    steps: int = 100
    """Iterations, or queries of Square."""
    targets: int = 0
    """Target classes, in order of their rank; 0: untargeted."""
    ranking: Literal["logit", "malt"] = "logit"
    """Order of targets: by clean logit, or by linearised distance to the boundary
    (Melamed et al. 2024, arXiv 2407.02240)."""
    restarts: int = 1
    larger_radii: bool = False
    """L1 only: begin at 3 eps and 2 eps."""
    averaged: int = 1
    """Passes per gradient, for stochastic classifiers."""
    randomness: Randomness = "per-example"
    sequence: bool = True
    engine: str = field(default=f"robrep {__version__}", init=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """What is in force, JSON-ready."""
        shown: dict[str, Any] = {
            "steps": self.steps,
            "restarts": self.restarts,
            "randomness": self.randomness,
        }
        if self.family == "apgd":
            shown |= {"loss": self.loss, "averaged": self.averaged}
            shown |= {"larger_radii": self.larger_radii}
        if self.targets:
            shown |= {"targets": self.targets, "ranking": self.ranking}
        return shown

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """See `Attack.propose`; rows that held are the clean images."""
        run = _Run(self, classifier, x, y, threat, context)
        return run.all()


class _Run:
    """One attack on one set of examples."""

    def __init__(
        self,
        attack: EngineAttack,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> None:
        exact = attack.randomness == "official-rng"
        self.attack = attack
        self.classifier = classifier
        self.threat = threat
        self.context = context
        self.model = prepare(classifier, exact=exact)
        self.x = x.to(context.device)
        self.y = y.to(context.device)
        self.batch_size = (
            context.batch_size if exact else physical_batch(self.x, context.batch_size)
        )
        self.noise = source(attack.randomness, context.seed, attack.name)
        self.proposals = x.clone().cpu()
        self.alive = torch.arange(len(x))
        self.flat = 0
        self.told = 0.0
        self.order = self._targets()
        # The official stream cannot be entered in the middle.
        self.journal = None if exact else context.journal

    def all(self) -> Tensor:
        """Every restart and target in turn."""
        saved = self.journal.load() if self.journal else {}
        first = 0
        if saved:
            first = int(saved["run"])
            self.alive, self.proposals = saved["alive"], saved["proposals"]
        total = max(1, self.attack.targets) * self.attack.restarts
        total = min(total, self.order.shape[1] * self.attack.restarts) or 1
        for run in range(first, total):
            if not len(self.alive):
                break
            self._one(run, total, saved if run == first else {})
        if self.flat:
            self.context.note(
                f"{self.attack.name}: the gradient was exactly zero at {self.flat} "
                "starts; a sign of masked gradients"
            )
        self.context.progress(1.0)
        return self.proposals

    def _one(self, run: int, total: int, saved: State) -> None:
        """One restart or target over the examples still standing."""
        problem = self._problem(run)
        program = self._program(problem, run, self.model.guard)
        pool = Pool(program, torch.arange(len(self.alive)), problem.x, self.batch_size)
        if saved:
            pool.restore(saved)
        pool.run(lambda p: self._on_step(p, run, total))
        at, images = pool.results()
        sure = self._confirm(at, images)
        self._keep(at[sure], images[sure])
        fallen = torch.zeros(len(self.alive), dtype=torch.bool)
        fallen[at[sure]] = True
        if bool((~sure).any()):
            fallen[self._again(problem, run, at[~sure])] = True
        self.flat += getattr(program, "flat", 0)
        broken = pool.broken & ~fallen
        if bool(broken.any()):
            self.context.undecided(self.alive[broken])
        self.alive = self.alive[~(fallen | broken)]

    def _again(self, problem: Problem, run: int, tasks: Tensor) -> Tensor:
        """Retired on the prepared model, but not fooled on the original: to the end.

        Without retirement the last misclassified iterate counts, as in the reference.
        Returns the tasks that are fooled after all.
        """
        if self.attack.randomness == "official-rng":
            return tasks[:0]
        program = self._program(problem, run, float("inf"))
        pool = Pool(program, tasks, problem.x, self.batch_size)
        pool.run()
        at, images = pool.results()
        sure = self._confirm(tasks[at], images)
        self._keep(tasks[at][sure], images[sure])
        return tasks[at][sure]

    def _problem(self, run: int) -> Problem:
        rows = self.alive.to(self.x.device)
        rank = min(run // self.attack.restarts, self.order.shape[1] - 1)
        return Problem(
            model=self.model,
            x=self.x[rows],
            y=self.y[rows],
            ids=self.context.ids[self.alive],
            threat=self.threat,
            target=self.order[rows, rank],
        )

    def _program(self, problem: Problem, run: int, guard: float) -> Program:
        attack, noise = self.attack, self.noise
        shape = tuple(problem.x.shape[1:])
        if attack.family == "square":
            return self._square(problem, run, guard)
        norm = self.threat.norm
        if attack.family == "fab":
            again = run % attack.restarts > 0
            kind: Literal["uniform", "normal"] = (
                "uniform" if norm == "Linf" else "normal"
            )
            return Fab(
                problem,
                noise.images(kind, run, problem.ids, shape) if again else None,
                iterations=attack.steps,
                guard=guard,
                classes=None if attack.targets else self.classifier.classes,
            )
        loss = LOSSES[attack.loss]
        if norm == "L1":
            return ApgdL1(
                problem,
                loss,
                self._l1_draws(noise, run, problem.ids, shape),
                iterations=attack.steps,
                guard=guard,
                averaged=attack.averaged,
                larger=attack.larger_radii,
            )
        kind = "uniform" if norm == "Linf" else "normal"
        return Apgd(
            problem,
            loss,
            noise.images(kind, run, problem.ids, shape),
            iterations=attack.steps,
            guard=guard,
            averaged=attack.averaged,
        )

    def _l1_draws(
        self, noise: Noise, run: int, ids: Tensor, shape: tuple[int, ...]
    ) -> Any:
        draws = noise.images("normal", run, ids, shape)
        if self.attack.larger_radii:
            for _ in range(3):  # a start per stage that the reference throws away
                noise.discard("normal", len(ids), shape)
        return draws

    def _square(self, problem: Problem, run: int, guard: float) -> Program:
        # A run to the very end (infinite guard) still ends at a clear success.
        if self.threat.norm == "Linf":
            return SquareLinf(
                problem, self.noise, run=run, queries=self.attack.steps, guard=guard
            )
        return SquareWindows(
            problem,
            self.noise,
            run=run,
            queries=self.attack.steps,
            guard=guard,
            batch_size=self.batch_size,
        )

    def _targets(self) -> Tensor:
        """(n, targets) classes in the order of attack; one column if untargeted."""
        count = self.attack.targets
        if not count:
            return self.y.unsqueeze(1)
        logits = self.model.logits(self.x, self.batch_size)
        if count > logits.shape[1] - 1:
            count = logits.shape[1] - 1
            self.context.note(
                f"{self.attack.name}: {count} target classes instead of "
                f"{self.attack.targets}, as there are {logits.shape[1]} classes"
            )
        wrong = logits.scatter(1, self.y.unsqueeze(1), -float("inf"))
        if self.attack.ranking == "logit":
            return wrong.argsort(dim=1, descending=True, stable=True)[:, :count]
        width = min(MALT_CANDIDATES, logits.shape[1] - 1)
        classes = wrong.topk(width, dim=1).indices
        parts = zip(
            self.x.split(self.batch_size),
            self.y.split(self.batch_size),
            classes.split(self.batch_size),
            strict=True,
        )
        return torch.cat(
            [_by_distance(self.model, *part, self.threat) for part in parts]
        )[:, :count]

    def _confirm(self, at: Tensor, images: Tensor) -> Tensor:
        """Whether the original misclassifies what was found; bool (k,)."""
        if not len(at):
            return torch.zeros(0, dtype=torch.bool)
        y = self.y[self.alive[at].to(self.y.device)].cpu()
        with torch.no_grad():
            logits = [
                self.classifier(part.to(self.x.device)).float().cpu()
                for part in images.split(self.context.batch_size)
            ]
        return torch.cat(logits).argmax(dim=1) != y

    def _keep(self, at: Tensor, images: Tensor) -> None:
        self.proposals[self.alive[at]] = images

    def _on_step(self, pool: Pool, run: int, total: int) -> None:
        now = time.monotonic()
        if now - self.told > TELL_SECONDS:
            self.told = now
            self.context.progress((run + pool.share()) / total)
        if self.journal is not None and self.journal.due() and self.journal.save:
            here = {
                "run": torch.tensor(run),
                "alive": self.alive,
                "proposals": self.proposals,
            }
            self.journal.save(here | pool.save())


def _by_distance(
    model: Model, x: Tensor, y: Tensor, classes: Tensor, threat: ThreatModel
) -> Tensor:
    """`classes` (n, m) by linearised distance to the boundary, nearest first."""
    both = torch.cat([y.unsqueeze(1), classes], dim=1)
    logits, rows = model.jacobian(x, both)
    picked = logits.gather(1, both)
    gap = picked[:, :1] - picked[:, 1:]
    slope = (rows[:, :1] - rows[:, 1:]).flatten(2)
    dual = {"Linf": slope.abs().sum(2), "L2": slope.square().sum(2).sqrt()}.get(
        threat.norm, slope.abs().amax(2)
    )
    order = (gap / (dual + 1e-12)).argsort(dim=1, stable=True)
    return classes.gather(1, order)
