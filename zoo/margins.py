"""What is read off logits, one value per example: margins, losses, differences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Logit of the label minus the largest other one; negative: misclassified.

    Args:
        logits: (N, K), any float dtype, which the result keeps.
        y: Labels (N,), int64.

    Returns:
        (N,).
    """
    own = logits.gather(1, y.unsqueeze(1)).squeeze(1)
    return own - logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(dim=1)


def probability_margin(logits: Tensor, y: Tensor) -> Tensor:
    """The same of probabilities, in [-1, 1]; arguments as for `margin`."""
    return margin(logits.softmax(dim=1), y)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """In nats, (N,); arguments as for `margin`."""
    return F.cross_entropy(logits, y, reduction="none")


def spread(logits: Tensor) -> Tensor:
    """Largest minus smallest logit (N,), at least 1e-12: the scale of a difference."""
    return (logits.amax(dim=1) - logits.amin(dim=1)).clamp(min=1e-12)


def difference(want: Tensor, got: Tensor) -> Tensor:
    """Largest difference of a row's logits (N, K) relative to the spread of `want`.

    (N,). Infinite where one is no number or infinite and the other is not the same.
    """
    same = (want == got) | (want.isnan() & got.isnan())
    apart = torch.where(same, 0.0, (want - got).abs()).amax(dim=1)
    found = torch.where(apart == 0, apart, apart / spread(want))
    return found.nan_to_num(torch.inf, torch.inf)
