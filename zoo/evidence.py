"""The re-check: whether claimed adversarials are adversarial.

Forward passes and arithmetic only; no attack code. An attack proposes, this decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.ball import lengths
from zoo.classifier import predict
from zoo.layout import Layout
from zoo.records import Outcome
from zoo.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Check:
    """What the re-check found, one row per example."""

    outcome: list[Outcome]
    distance: Tensor
    """Norm of the perturbation, float64 (N,)."""

    @property
    def fooled(self) -> Tensor:
        """Bool (N,)."""
        return torch.tensor([o is Outcome.FOOLED for o in self.outcome])


def check_adversarials(
    classifier: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    batch_sizes: tuple[int, int] = (100, 37),
    device: str = "cpu",
) -> Check:
    """Decides for each proposal whether it counts.

    It must be finite, lie in [0, 1] exactly, lie in the ball (float64 distance, slack
    `threat.tolerance`), and be misclassified in fresh forward passes at two batch
    sizes; if those two disagree, or logits are not finite, the example is undecided.
    A proposal that is classified correctly simply means that the example held.

    Args:
        classifier: Images to logits, eval mode.
        x: Clean images (N, C, H, W).
        x_adv: Proposals of the same shape.
        y: True labels (N,).
        threat: What is allowed.
        batch_sizes: Two different ones, so that an outcome which depends on the batch
            shows.
        device: Where the classifier lives.
    """
    x_adv = x_adv.cpu()
    distance = lengths(x_adv.double() - x.cpu().double(), threat.norm)
    finite = x_adv.flatten(1).isfinite().all(dim=1)
    in_box = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(dim=1)
    in_ball = distance <= threat.eps + threat.tolerance(tuple(x.shape[1:]))
    allowed = finite & in_box & in_ball
    safe = torch.where(allowed.view(-1, 1, 1, 1), x_adv, x.cpu())
    passes = [
        predict(classifier, safe, Layout(device=device, batch_size=size))
        for size in batch_sizes
    ]
    wrong = [logits.argmax(dim=1) != y.cpu() for logits in passes]
    clear = passes[0].isfinite().all(dim=1) & passes[1].isfinite().all(dim=1)
    clear &= wrong[0] == wrong[1]
    return Check(
        outcome=[
            _decide(*row)
            for row in zip(
                allowed.tolist(), clear.tolist(), wrong[0].tolist(), strict=True
            )
        ],
        distance=distance,
    )


def _decide(allowed: bool, clear: bool, wrong: bool) -> Outcome:
    if not allowed:
        return Outcome.REFUSED
    if not clear:
        return Outcome.UNDECIDED
    return Outcome.FOOLED if wrong else Outcome.HELD
