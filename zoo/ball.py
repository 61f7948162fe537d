"""Geometry of a threat model: distances, projections, starts and steps.

All functions act per example on (N, ...) tensors and never mix rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.threat import Norm, ThreatModel


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, ...) so that it broadcasts over `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))


def lengths(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of each row of (N, ...), in the tensor's own dtype; shape (N,)."""
    flat = delta.flatten(1)
    if norm == "Linf":
        return flat.abs().amax(dim=1)
    if norm == "L2":
        return flat.square().sum(dim=1).sqrt()
    return flat.abs().sum(dim=1)


def project(x: Tensor, origin: Tensor, threat: ThreatModel) -> Tensor:
    """Brings `x` into the ball around `origin` and into [0, 1].

    Linf and L1 give the nearest point of the intersection of ball and box. L2 scales
    the offset and then clips, which is feasible (clipping towards a box that holds
    the origin only shrinks offsets) but not always the nearest point; it is what
    AutoAttack does (arXiv 2003.01690).

    Args:
        x: Points (N, ...), any finite values.
        origin: Clean images of the same shape, within [0, 1].
        threat: The ball.
    """
    if threat.norm == "Linf":
        low = (origin - threat.eps).clamp(min=0)
        high = (origin + threat.eps).clamp(max=1)
        return torch.minimum(torch.maximum(x, low), high)
    delta = x - origin
    if threat.norm == "L2":
        size = _column(lengths(delta, "L2"), x).clamp(min=1e-12)
        return (origin + delta * (threat.eps / size).clamp(max=1)).clamp(0, 1)
    return origin + project_l1(delta, origin, threat.eps)


def project_l1(delta: Tensor, origin: Tensor, eps: float | Tensor) -> Tensor:
    """Nearest offset with L1 norm at most eps that keeps origin + offset in [0, 1].

    eps may differ by row: (N, 1).

    The optimum is min(max(|d| - t, 0), room) with the sign of d, for the smallest
    t >= 0 whose total is at most eps (Croce & Hein 2021, arXiv 2103.01208, sec. 2.1).
    The total is piecewise linear and decreasing in t with kinks at |d| and
    |d| - room, so t is found exactly: sort the kinks, find the segment, interpolate.
    """
    flat = delta.flatten(1).double()  # (N, D); sums of 2 D terms follow
    base = origin.flatten(1).double()
    size = flat.abs()
    room = torch.where(flat > 0, 1 - base, base).clamp(min=0)
    kinks = torch.cat([size, size - room], dim=1).clamp(min=0)
    kinks, order = kinks.sort(dim=1)  # ascending t
    # Slope of the total: -1 for each coordinate with size - room < t < size.
    starts = order >= size.shape[1]
    slopes = torch.where(starts, -1.0, 1.0).double().cumsum(dim=1)
    steps = torch.diff(kinks, dim=1) * slopes[:, :-1]
    at_zero = torch.minimum(size, room).sum(dim=1, keepdim=True)
    totals = torch.cat([at_zero, at_zero + steps.cumsum(dim=1)], dim=1)
    # totals[k] is the total at kinks[k]; it cannot change before the first kink.
    right = (totals > eps).sum(dim=1, keepdim=True).clamp(max=kinks.shape[1] - 1)
    left = (right - 1).clamp(min=0)
    t0, t1 = kinks.gather(1, left), kinks.gather(1, right)
    f0, f1 = totals.gather(1, left), totals.gather(1, right)
    share = ((f0 - eps) / (f0 - f1).clamp(min=1e-30)).clamp(0, 1)
    t = torch.where(at_zero > eps, t0 + share * (t1 - t0), torch.zeros_like(t0))
    shrunk = torch.minimum((size - t).clamp(min=0), room)
    return (shrunk * flat.sign()).view_as(delta).to(delta.dtype)


def random_start(x: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
    """A point drawn uniformly from the ball around each image, clipped to [0, 1].

    Args:
        x: Clean images (N, ...) in [0, 1].
        generator: CPU generator; equal states give equal starts on every device.
    """
    draw = torch.randn if threat.norm == "L2" else torch.rand
    draws = draw((len(x), x[0].numel()), generator=generator)
    radii = None
    if threat.norm != "Linf":
        radii = torch.rand((len(x), 1), generator=generator)
    return start_from(x, threat, draws, radii)


def start_from(
    x: Tensor, threat: ThreatModel, draws: Tensor, radii: Tensor | None
) -> Tensor:
    """The point of the ball around each image that some draws stand for.

    Args:
        x: Clean images (N, ...) in [0, 1], D pixels each.
        draws: (N, D), normal for L2, uniform in [0, 1) for Linf and L1.
        radii: (N, 1), uniform in [0, 1); not used for Linf.
    """
    if threat.norm == "Linf":
        unit = draws * 2 - 1
    else:
        assert radii is not None, "a direction alone is no point"
        # A uniform direction times radius u^(1/dim): uniform in volume. For L1 the
        # direction comes from Laplace draws, for L2 from Gaussian ones.
        unit = draws
        if threat.norm == "L1":
            draws = draws - 0.5
            unit = -draws.sign() * torch.log1p(-2 * draws.abs().clamp(max=0.4999999))
        radius = radii ** (1 / draws.shape[1])
        unit = unit / lengths(unit, threat.norm).unsqueeze(1).clamp(min=1e-12) * radius
    delta = threat.eps * unit.to(x.device, x.dtype).view_as(x)
    return project(x + delta, x, threat)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of unit length, in `norm`, along which the objective grows most.

    Linf: the sign. L2: the normalised gradient. L1: the sign of the largest tenth of
    the coordinates, spread evenly, since the exact answer (one coordinate) is useless
    in practice (Croce & Hein 2021, arXiv 2103.01208, sec. 3). Zero stays zero.
    """
    if norm == "Linf":
        return gradient.sign()
    if norm == "L2":
        size = _column(lengths(gradient, "L2"), gradient)
        return gradient / size.clamp(min=torch.finfo(gradient.dtype).tiny)
    flat = gradient.flatten(1)
    k = max(1, flat.shape[1] // 10)
    threshold = flat.abs().topk(k, dim=1).values[:, -1:]
    sparse = flat.sign() * (flat.abs() >= threshold)
    return (sparse / sparse.abs().sum(dim=1, keepdim=True).clamp(min=1)).view_as(
        gradient
    )
