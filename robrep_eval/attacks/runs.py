"""The runs of one attack: one per restart or target, on the examples left standing.

Each run takes the examples that the runs before it did not fool. When these are too
few to fill a batch, several targets run side by side; the first target that fools an
example is the one that counts, so the outcome is the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.noise import noise_of
from robrep_eval.attacks.pool import Pool, State
from robrep_eval.attacks.prepared import prepare
from robrep_eval.attacks.problem import Problem, physical_batch
from robrep_eval.attacks.targets import by_distance, by_logit
from robrep_eval.attacks.turn import Programmed, Turn
from zoo.classifier import Classifier
from zoo.margins import margin
from zoo.threat import ThreatModel

TELL_SECONDS = 0.5
"""Between reports of progress."""


class Runs:
    """One attack on one set of examples.

    Args:
        gaps: How near each class's logit came to the label's before, (n, classes).
    """

    def __init__(
        self,
        attack: Programmed,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
        gaps: Tensor | None = None,
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
        self.noise = noise_of(attack.randomness, context.seed, attack.name)
        self.proposals = x.clone().cpu()
        self.alive = torch.arange(len(x))
        self.fooled = torch.zeros(len(x), dtype=torch.bool)
        self.gaps = gaps
        self.flat = 0
        self.told = 0.0
        self.targets = attack.targets
        self.order = self._order()
        # The official stream cannot be entered in the middle.
        self.journal = None if exact else context.journal

    def all(self) -> Tensor:
        """Every restart and target in turn; returns the proposals (n, C, H, W)."""
        saved = self.journal.load() if self.journal else {}
        run = 0
        if saved:
            run = int(saved["run"])
            self.alive, self.proposals = saved["alive"], saved["proposals"]
            self.fooled, self.gaps = saved["fooled"], saved.get("gaps.met", self.gaps)
        total = self.order.shape[1] * self.attack.restarts
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
        """How many runs fill a batch with the examples still standing."""
        attack = self.attack
        ordered = attack.randomness == "official-rng" or not attack.alike
        if ordered or (first and self.targets.near < 1):
            return 1
        return max(1, min(left, self.batch_size // len(self.alive)))

    def _side_by_side(self, runs: Sequence[int], total: int, saved: State) -> None:
        """Some restarts or targets over the examples still standing.

        Task number k * n + i is example i under the k-th of `runs`.
        """
        turn = self._turn(runs)
        n = len(self.alive)
        program = self.attack.program(turn)
        tasks = torch.arange(n * len(runs))
        pool = Pool(program, tasks, turn.problem.x, self.batch_size)
        if saved:
            pool.restore(saved)
        pool.run(lambda p: self._on_step(p, runs, total))
        self.flat += getattr(program, "flat", 0)
        at, images = pool.results()
        standing = torch.ones(n, dtype=torch.bool)
        for k in range(len(runs)):
            mine = (at // n == k) & standing[at % n]
            fallen = self._settle(turn, at[mine], images[mine])
            standing[fallen] = False
            broken = pool.broken[k * n : (k + 1) * n] & standing
            if bool(broken.any()):
                self.context.undecided(self.alive[broken])
                standing[broken] = False
        if pool.gaps is not None:
            self._meet(pool.gaps)
        if runs[0] == 0 and self.targets.near < 1:
            standing &= self.least()[self.alive] <= (
                self.targets.near * self.margins[self.alive]
            )
        self.alive = self.alive[standing]

    def _settle(self, turn: Turn, tasks: Tensor, images: Tensor) -> Tensor:
        """Keeps what fools the original too; returns those examples' places (k,)."""
        n = len(self.alive)
        sure = self._confirm(tasks % n, images)
        self._keep(tasks[sure] % n, images[sure])
        if bool(sure.all()):
            return tasks % n
        again = self._again(turn, tasks[~sure])
        return torch.cat([tasks[sure], again]) % n

    def _again(self, turn: Turn, tasks: Tensor) -> Tensor:
        """Retired on the prepared model, but not fooled on the original: to the end.

        Without retirement the last misclassified iterate counts, as in the reference.
        Returns the tasks that are fooled after all.
        """
        if self.attack.randomness == "official-rng":
            return tasks[:0]
        n = len(self.alive)
        program = self.attack.program(replace(turn, guard=float("inf")))
        pool = Pool(program, tasks, turn.problem.x, self.batch_size)
        pool.run()
        at, images = pool.results()
        sure = self._confirm(tasks[at] % n, images)
        self._keep(tasks[at][sure] % n, images[sure])
        return tasks[at][sure]

    def _turn(self, runs: Sequence[int]) -> Turn:
        rows = self.alive.to(self.x.device)
        ranks = [run // self.attack.restarts for run in runs]
        count = len(runs)
        problem = Problem(
            model=self.model,
            x=self.x[rows].repeat(count, 1, 1, 1),
            y=self.y[rows].repeat(count),
            ids=self.context.ids[self.alive].repeat(count),
            threat=self.threat,
            target=torch.cat([self.order[rows, rank] for rank in ranks]),
        )
        return Turn(
            problem=problem,
            noise=self.noise,
            runs=runs,
            guard=self.model.guard,
            batch_size=self.batch_size,
            classes=self.classifier.classes,
        )

    def _order(self) -> Tensor:
        """(n, targets) classes in the order of attack; one column if untargeted."""
        wanted = self.targets.count
        if not wanted:
            return self.y.unsqueeze(1)
        logits = self.model.logits(self.x, self.batch_size)
        self.margins = margin(logits, self.y).cpu()
        count = min(wanted, logits.shape[1] - 1)
        if count < wanted:
            self.context.note(
                f"{self.attack.name}: {count} target classes instead of "
                f"{wanted}, as there are {logits.shape[1]} classes"
            )
        if self.targets.ranking == "met":
            if self.gaps is None:
                raise ValueError("no round before this one has met any class")
            met = self.gaps.to(self.y.device)
            return by_logit(-met, self.y)[:, :count]
        if self.targets.ranking == "logit":
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
        self.fooled[self.alive[at]] = True

    def least(self) -> Tensor:
        """The least margin met of each example (n,), on the CPU; infinity: none."""
        if self.gaps is None:
            return torch.full((len(self.y),), torch.inf)
        own = self.y.cpu().unsqueeze(1)
        return self.gaps.scatter(1, own, torch.inf).amin(dim=1)

    def _meet(self, gaps: Tensor) -> None:
        """Notes how near each class came, of tasks k * n + i as in `Turn`."""
        if self.gaps is None:
            self.gaps = gaps.new_full((len(self.y), gaps.shape[1]), torch.inf)
        least = gaps.view(-1, len(self.alive), gaps.shape[1]).amin(dim=0)
        self.gaps[self.alive] = self.gaps[self.alive].minimum(least)

    def _on_step(self, pool: Pool, runs: Sequence[int], total: int) -> None:
        now = time.monotonic()
        if now - self.told > TELL_SECONDS:
            self.told = now
            done = runs[0] + pool.share() * len(runs)
            self.context.progress(done / total)
        if self.journal is not None and self.journal.due():
            met = {} if self.gaps is None else {"gaps.met": self.gaps}
            here = met | {
                "fooled": self.fooled,
                "run": torch.tensor(runs[0]),
                "together": torch.tensor(len(runs)),
                "alive": self.alive,
                "proposals": self.proposals,
            }
            self.journal.keep(here | pool.save())
