"""What the attacks increase: one value per example from logits and labels.

All take logits (n, classes), labels (n,) and targets (n,), and return (n,); the
untargeted ones ignore the target. Each grows as the example comes closer to being
misclassified.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from zoo import margins

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

_TINY = 1e-12  # as in the reference implementation of DLR


def cross_entropy(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the true label."""
    return margins.cross_entropy(logits, y)


def dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Difference of logits ratio: margin over (largest - third largest) logit.

    With two classes there is no third logit, and the ratio of the only two would be
    constant: the bare difference is used.

    Source: Croce & Hein 2020, arXiv 2003.01690, equation (6).
    """
    count = min(3, logits.shape[1])
    top = logits.topk(count, dim=1)
    of_label = _pick(logits, y)
    other = top.values[:, 0].where(top.indices[:, 0] != y, top.values[:, 1])
    if count < 3:
        return other - of_label
    return -(of_label - other) / (top.values[:, 0] - top.values[:, 2] + _TINY)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Difference of the label's and the target's logit over a spread of the largest.

    The spread is the largest logit minus the mean of third and fourth; with three
    classes, minus the third; with two, one.

    Source: Croce & Hein 2020, arXiv 2003.01690, equation (7).
    """
    count = min(4, logits.shape[1])
    top = logits.topk(count, dim=1).values
    difference = -(_pick(logits, y) - _pick(logits, target))
    if count < 3:
        return difference
    low = 0.5 * (top[:, 2] + top[:, 3]) if count == 4 else top[:, 2]
    return difference / (top[:, 0] - low + _TINY)


def probability_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Highest probability among wrong classes minus that of the label.

    Source: Xie et al. 2024, arXiv 2411.15210.
    """
    return -margins.probability_margin(logits, y)


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "dlr": dlr,
    "dlr-targeted": targeted_dlr,
    "probability-margin": probability_margin,
}
"""By the names that results carry."""


def _pick(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index.unsqueeze(1)).squeeze(1)
