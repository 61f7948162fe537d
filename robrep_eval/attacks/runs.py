"""The runs of one attack: one per restart or target, on the examples left standing.

Each run takes the examples that the runs before it did not fool. When these are too
few to fill a batch, several targets run side by side; the first target that fools an
example is the one that counts, so the outcome is the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robrep_eval.attacks import losses
from robrep_eval.attacks.apgd import Apgd
from robrep_eval.attacks.apgd_l1 import ApgdL1
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.fab import Fab
from robrep_eval.attacks.noise import Kind, Rows, source
from robrep_eval.attacks.pool import Pool, Program, State
from robrep_eval.attacks.problem import Problem, physical_batch, prepare
from robrep_eval.attacks.square import SquareLinf
from robrep_eval.attacks.square_windows import SquareWindows
from robrep_eval.attacks.targets import by_distance, by_logit
from zoo.classifier import Classifier
from zoo.threat import ThreatModel

if TYPE_CHECKING:
    from robrep_eval.attacks.members import EngineAttack

LOSSES: dict[str, losses.Loss] = {
    "ce": losses.cross_entropy,
    "dlr": losses.dlr,
    "dlr-targeted": losses.targeted_dlr,
    "probability-margin": losses.probability_margin,
}
TELL_SECONDS = 0.5
"""Between reports of progress."""


class Runs:
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
        """Every restart and target in turn; returns the proposals (n, C, H, W)."""
        saved = self.journal.load() if self.journal else {}
        run = 0
        if saved:
            run = int(saved["run"])
            self.alive, self.proposals = saved["alive"], saved["proposals"]
        total = max(1, self.attack.targets) * self.attack.restarts
        total = min(total, self.order.shape[1] * self.attack.restarts) or 1
        while run < total and len(self.alive):
            if saved:
                count = int(saved["together"])
            else:
                count = self._together(total - run, first=run == 0)
            self._side_by_side(range(run, run + count), total, saved)
            run, saved = run + count, {}
        if self.flat:
            self.context.note(
                f"{self.attack.name}: the gradient was exactly zero at {self.flat} "
                "starts; a sign of masked gradients"
            )
        self.context.progress(1.0)
        return self.proposals

    def _together(self, left: int, *, first: bool) -> int:
        """How many targets fill a batch with the examples still standing."""
        attack = self.attack
        ordered = attack.randomness == "official-rng" or attack.restarts > 1
        if ordered or attack.family == "square" or (first and attack.near < 1):
            return 1
        return max(1, min(left, self.batch_size // len(self.alive)))

    def _side_by_side(self, runs: Sequence[int], total: int, saved: State) -> None:
        """Some restarts or targets over the examples still standing.

        Task number k * n + i is example i under the k-th of `runs`.
        """
        problem = self._problem(runs)
        n = len(self.alive)
        tasks = torch.arange(n * len(runs))
        program = self._program(problem, runs, self.model.guard)
        pool = Pool(program, tasks, problem.x, self.batch_size)
        if saved:
            pool.restore(saved)
        pool.run(lambda p: self._on_step(p, runs, total))
        self.flat += getattr(program, "flat", 0)
        at, images = pool.results()
        standing = torch.ones(n, dtype=torch.bool)
        for k in range(len(runs)):
            mine = (at // n == k) & standing[at % n]
            fallen = self._settle(problem, runs, at[mine], images[mine])
            standing[fallen] = False
            broken = pool.broken[k * n : (k + 1) * n] & standing
            if bool(broken.any()):
                self.context.undecided(self.alive[broken])
                standing[broken] = False
        if runs[0] == 0 and self.attack.near < 1:
            standing &= pool.gap[:n] <= self.attack.near * self.margins[self.alive]
        self.alive = self.alive[standing]

    def _settle(
        self, problem: Problem, runs: Sequence[int], tasks: Tensor, images: Tensor
    ) -> Tensor:
        """Keeps what fools the original too; returns those examples' places (k,)."""
        n = len(self.alive)
        sure = self._confirm(tasks % n, images)
        self._keep(tasks[sure] % n, images[sure])
        if bool(sure.all()):
            return tasks % n
        again = self._again(problem, runs, tasks[~sure])
        return torch.cat([tasks[sure], again]) % n

    def _again(self, problem: Problem, runs: Sequence[int], tasks: Tensor) -> Tensor:
        """Retired on the prepared model, but not fooled on the original: to the end.

        Without retirement the last misclassified iterate counts, as in the reference.
        Returns the tasks that are fooled after all.
        """
        if self.attack.randomness == "official-rng":
            return tasks[:0]
        n = len(self.alive)
        program = self._program(problem, runs, float("inf"))
        pool = Pool(program, tasks, problem.x, self.batch_size)
        pool.run()
        at, images = pool.results()
        sure = self._confirm(tasks[at] % n, images)
        self._keep(tasks[at][sure] % n, images[sure])
        return tasks[at][sure]

    def _problem(self, runs: Sequence[int]) -> Problem:
        rows = self.alive.to(self.x.device)
        ranks = [
            min(run // self.attack.restarts, self.order.shape[1] - 1) for run in runs
        ]
        count = len(runs)
        return Problem(
            model=self.model,
            x=self.x[rows].repeat(count, 1, 1, 1),
            y=self.y[rows].repeat(count),
            ids=self.context.ids[self.alive].repeat(count),
            threat=self.threat,
            target=torch.cat([self.order[rows, rank] for rank in ranks]),
        )

    def _program(self, problem: Problem, runs: Sequence[int], guard: float) -> Program:
        attack, norm = self.attack, self.threat.norm
        if attack.family == "square":
            return self._square(problem, runs[0], guard)
        if attack.family == "fab":
            again = runs[0] % attack.restarts > 0
            return Fab(
                problem,
                self._draws(problem, runs) if again else None,
                iterations=attack.steps,
                guard=guard,
                classes=None if attack.targets else self.classifier.classes,
            )
        loss = LOSSES[attack.loss]
        draws = self._draws(problem, runs)
        if norm != "L1":
            return Apgd(
                problem,
                loss,
                draws,
                iterations=attack.steps,
                guard=guard,
                averaged=attack.averaged,
            )
        if attack.larger_radii:
            for _ in range(3):  # a start per stage that the reference throws away
                self.noise.discard("normal", len(problem.x), problem.x.shape[1:])
        return ApgdL1(
            problem,
            loss,
            draws,
            iterations=attack.steps,
            guard=guard,
            averaged=attack.averaged,
            larger=attack.larger_radii,
        )

    def _draws(self, problem: Problem, runs: Sequence[int]) -> Rows:
        """Start noise of every task: that of its example in its run."""
        shape = tuple(problem.x.shape[1:])
        n = len(problem.x) // len(runs)
        each = [self._start(run, problem.ids[:n], shape) for run in runs]

        def rows(tasks: Tensor) -> Tensor:
            drawn = torch.empty((len(tasks), *shape))
            for k, draw in enumerate(each):
                mine = tasks // n == k
                drawn[mine] = draw(tasks[mine] % n)
            return drawn

        return each[0] if len(each) == 1 else rows

    def _start(self, run: int, ids: Tensor, shape: tuple[int, ...]) -> Rows:
        """Uniform in [0, 1) for Linf, which APGD spreads over the ball, else normal."""
        inside = self.threat.norm == "Linf"
        if self.attack.start == "random":
            kind: Kind = "uniform" if inside else "normal"
            return self.noise.images(kind, run, ids, shape)
        channels, height, width = shape
        one = (channels, height, 1) if run % 2 == 0 else (channels, 1, width)
        stripes = self.noise.images("uniform", run, ids, one)

        def rows(tasks: Tensor) -> Tensor:
            signs = (2 * stripes(tasks) - 1).sign().expand(-1, *shape)
            return (signs + 1) / 2 if inside else signs

        return rows

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
        attack = self.attack
        if not attack.targets:
            return self.y.unsqueeze(1)
        logits = self.model.logits(self.x, self.batch_size)
        self.margins = losses.margin(logits, self.y).cpu()
        count = min(attack.targets, logits.shape[1] - 1)
        if count < attack.targets:
            self.context.note(
                f"{attack.name}: {count} target classes instead of "
                f"{attack.targets}, as there are {logits.shape[1]} classes"
            )
        if attack.ranking == "logit":
            return by_logit(logits, self.y)[:, :count]
        return by_distance(
            self.model, self.x, self.y, logits, self.threat, self.batch_size
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

    def _on_step(self, pool: Pool, runs: Sequence[int], total: int) -> None:
        now = time.monotonic()
        if now - self.told > TELL_SECONDS:
            self.told = now
            done = runs[0] + pool.share() * len(runs)
            self.context.progress(done / total)
        if self.journal is not None and self.journal.due() and self.journal.save:
            here = {
                "run": torch.tensor(runs[0]),
                "together": torch.tensor(len(runs)),
                "alive": self.alive,
                "proposals": self.proposals,
            }
            self.journal.save(here | pool.save())
