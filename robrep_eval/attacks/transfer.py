"""Transfer attacks: adversarials made on another classifier, tried on this one.

Where they fool more than the white-box attacks do, the evaluation is broken: the
defence hides its gradient and holds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.pgd import ascend_each
from robrep_eval.attacks.registry import Choice
from zoo._version import __version__
from zoo.classifier import Classifier
from zoo.collection.store import names
from zoo.encoder import fingerprint
from zoo.errors import UserError, nearest
from zoo.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class TransferAttack:
    """PGD on a surrogate classifier; see `robrep_eval.attacks.base.Attack`."""

    reference: str
    """What the surrogate is, e.g. "zoo:simclr-digits"."""
    surrogate: Classifier | None = None
    """Takes the same images and has the same classes, in the same order. None until a
    probe on the named encoder has been fitted (`robrep_eval.run.surrogates`)."""
    steps: int = 50
    relative_step: float = 0.1
    """Length of a step as a share of eps."""
    gradients: ClassVar[bool] = False
    """Those of the surrogate alone."""
    name: str = "transfer"
    engine: str = field(default=f"robrep {__version__}", init=False)
    sequence: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "source": self.reference,
            "source_sha256": fingerprint(self._fitted),
            "steps": self.steps,
            "relative_step": self.relative_step,
            "loss": "cross-entropy of the source",
            "start": "uniform in the ball",
        }

    @property
    def _fitted(self) -> Classifier:
        if self.surrogate is None:
            raise ValueError(f"the surrogate {self.reference} has not been fitted yet")
        return self.surrogate

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """The surrogate's worst images; the attacked classifier is never asked."""
        surrogate = self._fitted.to(context.device)

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(surrogate(images), labels, reduction="none")

        return ascend_each(
            loss,
            x,
            y,
            threat,
            steps=self.steps,
            step_size=self.relative_step * threat.eps,
            layout=context.layout,
            generator=torch.Generator().manual_seed(context.seed),
            keep_best=True,
            on_progress=context.progress,
        )


def chosen(choice: Choice) -> list[TransferAttack]:
    """From "transfer:zoo:NAME"; the surrogate is fitted when the run begins.

    Raises:
        UserError: no encoder of the zoo.
    """
    reference = choice.name.partition(":")[2]
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
    return [TransferAttack(reference=reference, name=choice.name)]
