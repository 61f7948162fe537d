"""Is a classifier a fixed function of one image, with a gradient that is one?

Here it is measured, once. What follows from it is read elsewhere: the engine refuses
(`robrep_eval.attacks.checks`), the health checks raise a flag, and a submission names
an unmet rule.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.margins import difference

Logits = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to logits (N, K), without a graph."""

AGREEMENT = 1e-4
"""Largest `difference` of logits that counts as equal: float32 has seven digits, and
sums taken in another order may cost three of them."""
REFUSED = 10 * AGREEMENT
"""The same above which nothing is attacked; in between a health check says so."""
GRADIENTS = 0.02
"""Largest change of an image's gradient, relative to its length, that a copy may make:
a cosine of at least 0.9998 and a length within 2%."""
PROBABLE = 1e-3
"""By how much probabilities may miss a sum of one: what half precision leaves."""
OPPOSITE = 2.0
"""Largest relative difference of two slopes, that of opposite ones."""


def repeated(logits: Logits, x: Tensor, passes: int) -> Tensor:
    """`difference` of the first pass and the farthest of the others, (N,)."""
    first = logits(x)
    rest = [difference(first, logits(x)) for _ in range(passes - 1)]
    return torch.stack(rest).amax(dim=0)


def in_other_company(logits: Logits, x: Tensor, order: Tensor, alone: int) -> Tensor:
    """`difference` of a whole batch and others, (N,).

    The images are passed in another order in batches of a third, and the first ones
    each alone.

    Args:
        logits: The classifier.
        x: Images (N, C, H, W).
        order: A permutation of the rows (N,).
        alone: How many are passed alone.
    """
    whole, alone = logits(x), min(alone, len(x))
    parts = x[order].split(max(2, len(x) // 3))
    moved = torch.empty_like(whole)
    moved[order] = torch.cat([logits(part) for part in parts])
    worst = difference(whole, moved)
    single = torch.cat([logits(row) for row in x[:alone].split(1)])
    worst[:alone] = torch.maximum(worst[:alone], difference(whole[:alone], single))
    return worst


def probabilities(logits: Tensor) -> Tensor:
    """Bool (N,): no entry of the row is negative, and they sum to one."""
    return (logits >= 0).all(dim=1) & ((logits.sum(dim=1) - 1).abs() < PROBABLE)


def input_gradient(
    classifier: nn.Module, x: Tensor, objective: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """Gradient by the images, like `x`; None if no graph leads to them.

    Args:
        classifier: Images to logits.
        x: Images (N, C, H, W), where the classifier lives.
        objective: Of logits (N, K); its sum is differentiated.

    Raises:
        RuntimeError: autograd fails on the way.
    """
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = objective(classifier(leaf)).sum()
        if not value.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return gradient


def flat(gradient: Tensor) -> Tensor:
    """Bool (N,): exactly zero everywhere."""
    return (gradient.flatten(1) == 0).all(dim=1)


def broken(gradient: Tensor) -> Tensor:
    """Bool (N,): NaN or infinite at some pixel."""
    return ~gradient.flatten(1).isfinite().all(dim=1)


def ramp(logits: Tensor) -> Tensor:
    """A fixed combination of the logits (N, K) in which each has a weight; (N,)."""
    weights = torch.linspace(-1, 1, logits.shape[1]).to(logits)
    return (logits * weights).sum(dim=1)


def slope(classifier: nn.Module, x: Tensor, direction: Tensor) -> Tensor:
    """Autograd's slope of `ramp` along a direction, (N,).

    Args:
        classifier: Images to logits, in the precision of `x`.
        x: Images (N, C, H, W).
        direction: Like `x`.

    Raises:
        RuntimeError: no graph leads to the images.
    """
    gradient = input_gradient(classifier, x, ramp)
    if gradient is None:
        raise RuntimeError("no graph leads from the logits to the images")
    return (gradient * direction).flatten(1).sum(dim=1)


def slope_error(
    classifier: nn.Module,
    x: Tensor,
    direction: Tensor,
    step: float,
    claimed: Tensor | None = None,
) -> Tensor:
    """Relative difference of autograd's slope of `ramp` and the finite difference.

    (N,), from 0 to `OPPOSITE`, which also stands where one of them is not finite.

    Args:
        classifier: Images to logits, in the precision of `x`.
        x: Images (N, C, H, W), float64 for short steps.
        direction: Like `x`.
        step: Length along it, both ways.
        claimed: `slope` there, if it is known.

    Raises:
        RuntimeError: no graph leads to the images.
    """
    if claimed is None:
        claimed = slope(classifier, x, direction)
    with torch.no_grad():
        above = ramp(classifier(x + step * direction))
        below = ramp(classifier(x - step * direction))
    found = (above - below) / (2 * step)
    scale = torch.maximum(found.abs(), claimed.abs()).clamp(min=1e-12)
    return ((found - claimed).abs() / scale).nan_to_num(OPPOSITE, OPPOSITE)
