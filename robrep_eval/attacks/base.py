"""The contract of an attack: it proposes, and never decides its own success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from robrep_eval.attacks.pool import Journal
from zoo.classifier import Classifier
from zoo.layout import Layout
from zoo.threat import ThreatModel


def _ignore(*_: Any) -> None:
    """Default of the callbacks."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an attack is told beside the problem itself."""

    seed: int
    ids: Tensor
    """Position of each example in the published split, int64 (n,): the key of
    randomness that does not depend on batching."""
    batch_size: int
    """Examples per physical batch."""
    device: str = "cpu"
    """Where the classifier lives."""
    progress: Callable[[float], None] = _ignore
    """Called with the share of the work done, in [0, 1]."""
    note: Callable[[str], None] = _ignore
    """Called with anything the result should say, e.g. that targets were clamped."""
    undecided: Callable[[Tensor], None] = _ignore
    """Called with rows (k,) whose logits or gradients were not finite."""
    journal: Journal = field(default_factory=Journal)
    """Where an attack may keep unfinished work, to go on after a kill."""

    @property
    def layout(self) -> Layout:
        """Device and batch size, for what takes them together."""
        return Layout(device=self.device, batch_size=self.batch_size)


@runtime_checkable
class Attack(Protocol):
    """One attack with its settings.

    One that never asks for a gradient of the attacked classifier says so by a further
    attribute, `gradients = False`, and may attack what has none.
    """

    @property
    def name(self) -> str:
        """Unique within a battery, e.g. "apgd-ce"."""

    @property
    def engine(self) -> str:
        """Whose code runs: "robrep", "pyautoattack 0.2.0", "art 1.20.1"."""

    @property
    def sequence(self) -> bool:
        """True: attacks only survivors of the sequence so far, as AutoAttack does.
        False: attacks every example that is correct when clean."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Every setting in force, JSON-ready; recorded with the result."""

    def propose(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        context: Context,
    ) -> Tensor:
        """Candidate images for all rows, like `x`, on the CPU.

        Args:
            classifier: Images to logits; eval mode, frozen.
            x: Clean images (n, C, H, W) in [0, 1], each classified correctly.
            y: Labels (n,).
            threat: What is allowed.
            context: Seed, ids and callbacks.

        Returns:
            Rows where the attack failed may be anything allowed, such as the clean
            image; `zoo.evidence.check_adversarials` decides what counts.
        """


def needs_gradients(attack: Attack) -> bool:
    """Whether it takes gradients of the attacked classifier; so unless it says no."""
    return bool(getattr(attack, "gradients", True))
