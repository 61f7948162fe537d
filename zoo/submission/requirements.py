"""What RobustBench's maintainers ask of a submission, checked before it is made.

Sources: the README and issue forms of RobustBench: test points, threat models, and the
three restrictions on defences (non-zero gradients, determinism, no optimisation loop).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.margins import cross_entropy
from zoo.records import Result
from zoo.soundness import broken, flat, input_gradient, repeated

THREATS = {
    ("cifar10", "Linf"): 8 / 255,
    ("cifar10", "L2"): 0.5,
    ("cifar100", "Linf"): 8 / 255,
}
"""Their leaderboards that a toolkit for 32x32 images can serve."""
POINTS = 10_000
PROBE = 256
"""Images on which the restrictions are tried."""
FLAT = 0.01
"""Share of images whose gradient may vanish."""


@dataclass(frozen=True)
class Check:
    """One requirement."""

    what: str
    holds: bool
    found: str


def check_protocol(result: Result) -> list[Check]:
    """Dataset, radius, test points and attack."""
    data, threat = result.dataset, result.threat
    wanted = THREATS.get((data.name, threat.norm))
    boards = ", ".join(f"{name} {norm}" for name, norm in THREATS)
    return [
        Check(
            "a leaderboard for dataset and norm",
            wanted is not None,
            f"{data.name} {threat.norm} (theirs: {boards})",
        ),
        Check(
            "eps of their threat model",
            wanted is not None and abs(threat.eps - wanted) < 1e-9,
            f"{threat}" + (f" (theirs: {wanted:g})" if wanted else ""),
        ),
        Check(
            f"all {POINTS:,} test points in their order",
            result.examples.index == list(range(POINTS)) and data.split == "test",
            f"{data.n:,} of split '{data.split}'"
            + ("" if _in_order(result) else ", in another order"),
        ),
        Check(
            "AutoAttack standard, reference implementation",
            result.battery == "standard" and result.engine == "reference",
            f"{result.battery} ({result.engine})"
            + ("" if result.engine == "reference" else "; use --engine reference"),
        ),
        Check(
            "every example decided",
            result.undecided == 0,
            f"{result.undecided} undecided",
        ),
    ]


def check_health(doubts: list[str] | None) -> list[Check]:
    """What the evaluation itself found suspicious; nothing if it did not look.

    Args:
        doubts: As `zoo.judgement.doubts` returns them.
    """
    if doubts is None:
        return []
    found = " ".join(doubts) or "all passed"
    return [Check("health checks of the evaluation", not doubts, found)]


def _in_order(result: Result) -> bool:
    index = result.examples.index
    return index == list(range(index[0], index[0] + len(index)))


def check_defence(classifier: Classifier, data: Dataset) -> list[Check]:
    """The restrictions on what a forward pass may do.

    Args:
        classifier: On the CPU.
        data: The evaluated images.
    """
    count = min(PROBE, len(data))
    x, y = data.images(slice(count)), data.labels[:count]
    try:
        with torch.inference_mode():  # in which autograd refuses to work
            change = repeated(classifier, x, passes=3)
        plain = True
    except RuntimeError:
        change = repeated(lambda images: classifier(images).detach(), x, passes=3)
        plain = False
    same = bool((change == 0).all())
    gradient = input_gradient(classifier, x, lambda logits: cross_entropy(logits, y))
    share = 1.0
    if gradient is not None:
        share = float((flat(gradient) | broken(gradient)).float().mean())
    trained = [name for name, part in classifier.named_modules() if part.training]
    return [
        Check(
            "a deterministic forward pass",
            same and not trained,
            "three passes agree to the bit" if same else "repeated passes differ",
        ),
        Check(
            "no optimisation loop in the forward pass",
            plain,
            "runs without autograd" if plain else "the forward pass needs autograd",
        ),
        Check(
            "non-zero input gradients",
            share <= FLAT,
            f"none for {share:.1%} of {count} images",
        ),
    ]
