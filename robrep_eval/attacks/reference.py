"""AutoAttack by pyautoattack: the field's reference, one member attack at a time.

The chunk is one batch of the reference: within it, members run in order on the
survivors, as `AutoAttack.run_standard_evaluation(x, y, batch_size=len(chunk))` does
(arXiv 2003.01690), so verdicts equal those of that call with the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from torch import Tensor

from robrep_eval.attacks.base import Context
from robrep_eval.randomness import seeded
from zoo.classifier import Classifier
from zoo.threat import ThreatModel

Member = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
Version = Literal["standard", "plus", "rand"]

NEEDED_CLASSES: dict[Member, int] = {"apgd-t": 4, "apgd-dlr": 3}
"""The DLR losses read the third, or the fourth, largest logit."""


@cache
def engine_name() -> str:
    """Package and version, for the record."""
    return f"pyautoattack {version('pyautoattack')}"


@dataclass(frozen=True, kw_only=True)
class ReferenceAttack:
    """One member of AutoAttack; see `robrep_eval.attacks.base.Attack`."""

    member: Member
    version: Version = "standard"
    sequence: bool = True

    @property
    def name(self) -> str:
        return self.member

    @property
    def engine(self) -> str:
        return engine_name()

    @property
    def gradients(self) -> bool:
        return self.member != "square"

    @property
    def parameters(self) -> dict[str, Any]:
        return {"version": self.version, "batch": "the survivors of the chunk"}

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """Runs the member on the whole chunk as one batch, seeded anew."""
        from pyautoattack import AutoAttack

        needed = NEEDED_CLASSES.get(self.member, 2)
        if classifier.classes < needed:
            context.note(
                f"{self.member} needs {needed} classes, there are "
                f"{classifier.classes}: left out"
            )
            return x
        device = context.device
        runner = AutoAttack(
            classifier,
            norm=threat.norm,
            eps=threat.eps,
            seed=context.seed,
            version=self.version,
            device=device,
        )
        runner.attacks_to_run = [self.member]
        self._clamp_targets(runner, classifier.classes, context)
        with seeded(context.seed, device):
            x_adv, _ = runner.run_standard_evaluation(
                x.to(device), y.to(device), batch_size=len(x)
            )
        context.progress(1.0)
        return x_adv.cpu()  # type: ignore[no-any-return]

    def _clamp_targets(self, runner: Any, classes: int, context: Context) -> None:
        """The reference indexes beyond the logits with fewer classes than targets."""
        attack = {"apgd-t": runner.apgd_targeted, "fab-t": runner.fab}.get(self.member)
        if attack is not None and attack.n_target_classes > classes - 1:
            context.note(
                f"{self.member}: {classes - 1} target classes instead of "
                f"{attack.n_target_classes}, as there are {classes} classes"
            )
            attack.n_target_classes = classes - 1
