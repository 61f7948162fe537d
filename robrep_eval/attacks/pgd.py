"""The one inner maximisation: ascend any objective inside any threat model.

Evaluation attacks, the bound's displacement and every pretraining method call it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from zoo.ball import project, random_start, steepest
from zoo.layout import ON_CPU, Layout
from zoo.threat import ThreatModel

Objective = Callable[[Tensor], Tensor]
"""Maps images (N, C, H, W) to one value per example (N,), or to a scalar."""


def ascend(
    objective: Objective,
    x: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    keep_best: bool = False,
) -> Tensor:
    """Projected steepest ascent from a random start.

    Each step costs one forward pass and one backward pass to the input; no parameter
    gradient is computed or touched. `keep_best` costs one more forward pass.

    Args:
        objective: What to maximise. Rows must not influence each other unless that is
            meant (contrastive losses); the sum is differentiated.
        x: Clean images (N, C, H, W) in [0, 1]; the ball is around these.
        threat: Norm and radius.
        steps: Number of steps; 0 returns the start.
        step_size: Length of a step in the norm of the threat model.
        start: First iterate; projected first. By default uniform in the ball.
        generator: CPU source of the random start; required without `start`.
        keep_best: Return, per example, the iterate of the highest objective instead
            of the last one; the objective must then give one value per example.

    Returns:
        Images like `x`, detached, inside ball and box.

    Source: Madry et al. 2018, arXiv 1706.06083, section 2.1.
    """
    x = x.detach()
    if start is None:
        if generator is None:
            raise ValueError("ascend needs a start or a generator to draw one")
        start = random_start(x, threat, generator)
    current = project(start.detach(), x, threat)
    best, best_value = current, None
    for _ in range(steps):
        gradient, value = _gradient(objective, current)
        if keep_best:
            best, best_value = _better(best, best_value, current, value)
        current = project(
            current + step_size * steepest(gradient, threat.norm), x, threat
        )
    if keep_best:
        with torch.no_grad():
            best, _ = _better(best, best_value, current, objective(current))
        return best
    return current


def reaches(
    objective: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    threat: ThreatModel,
    *,
    above: float,
    steps: int,
    step_size: float,
    start: Tensor,
) -> Tensor:
    """Whether `ascend` with `keep_best` ends above a value, for less.

    An image that is above it once leaves: where most get there, a few passes do.

    Args:
        objective: Maps images (n, C, H, W) and their row numbers in `x`, int64 (n,),
            to one value each; rows must not influence each other.
        x: Clean images (N, C, H, W) in [0, 1].
        threat: Norm and radius.
        above: To be exceeded.
        steps: Number of steps.
        step_size: Length of a step in the norm of the threat model.
        start: First iterates; projected first.

    Returns:
        Bool (N,).
    """
    x = x.detach()
    found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    current = project(start.detach(), x, threat)
    for left in range(steps, -1, -1):
        if not len(rows):
            break
        if left:
            gradient, value = _gradient(partial(_numbered, objective, rows), current)
        else:
            with torch.no_grad():
                value = objective(current, rows)
        there = value > above
        found[rows[there]] = True
        rows = rows[~there]
        if left:
            ahead = current + step_size * steepest(gradient, threat.norm)
            current = project(ahead[~there], x[rows], threat)
    return found


def _numbered(
    objective: Callable[[Tensor, Tensor], Tensor], rows: Tensor, images: Tensor
) -> Tensor:
    return objective(images, rows)


def ascend_each(
    objective: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int,
    step_size: float,
    layout: Layout = ON_CPU,
    generator: torch.Generator | None = None,
    keep_best: bool = False,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Tensor:
    """`ascend` on any number of images, batch by batch; back on the CPU.

    Args:
        objective: Maps images and their labels to one value per example (n,).
        x: Clean images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        threat: Norm and radius.
        steps: Number of steps.
        step_size: Length of a step in the norm of the threat model.
        layout: Where the objective lives, and images per forward pass.
        generator: Of random starts; without it the clean images are the starts.
        keep_best: As for `ascend`.
        on_progress: Called with the share of the images that are done.
    """
    parts: list[Tensor] = []
    size = layout.batch_size
    for some, labels in zip(x.split(size), y.split(size), strict=True):
        clean = some.to(layout.device)
        found = ascend(
            partial(_labelled, objective, labels.to(layout.device)),
            clean,
            threat,
            steps=steps,
            step_size=step_size,
            start=clean if generator is None else None,
            generator=generator,
            keep_best=keep_best,
        )
        parts.append(found.cpu())
        on_progress(min(1.0, len(parts) * size / len(x)))
    return torch.cat(parts)


def _labelled(
    objective: Callable[[Tensor, Tensor], Tensor], labels: Tensor, images: Tensor
) -> Tensor:
    return objective(images, labels)


def _gradient(objective: Objective, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the summed objective with respect to the images alone."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = objective(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return gradient, value.detach()


def _better(
    best: Tensor, best_value: Tensor | None, new: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Row by row, the one with the higher value."""
    if best_value is None:
        return new, value
    higher = value > best_value
    mask = higher.view(-1, *[1] * (new.ndim - 1))
    return torch.where(mask, new, best), torch.where(higher, value, best_value)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; every mode is restored after.

    Without it an attack would move batch-norm statistics and compute weight gradients
    only to discard them.
    """
    modes = [(m, m.training) for module in modules for m in module.modules()]
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    try:
        _set_modes((m, False) for m, _ in modes)
        for p in trained:
            p.requires_grad_(False)
        yield
    finally:
        _set_modes(modes)
        for p in trained:
            p.requires_grad_(True)


def _set_modes(modes: Iterable[tuple[nn.Module, bool]]) -> None:
    """Module by module, where it differs: assigning to modules is slow."""
    for module, training in modes:
        if module.training != training:
            module.training = training
