"""Nearest points of a hyperplane inside the pixel box, in Linf, L2 and L1.

For each row: the smallest offset d, in the norm, with w . (t + d) = b and t + d in
[0, 1]; where the box does not reach the hyperplane, the point of the box next to it.

In Linf and L2 the optimum is d_i = -+ min(size_i(level), room_i), with the level
shared by the row, and the amount of w . d gained is a concave, piecewise linear,
increasing function of the level. Newton's method from below meets its root from the
left without overshooting and ends after as many steps as there are kinks to cross:
a handful of passes over the data where sorting costs many.

Source of the problem: Croce & Hein 2020, arXiv 1907.02044, section 3 and appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.ball import lengths
from zoo.threat import Norm

NEWTON = 64
"""Most steps; each passes at least one kink, about five are usual."""
READ_EVERY = {"cpu": 1}
OTHERWISE = 4
"""Steps until it is asked whether all rows are done, by kind of device: a GPU would be
waited for, and further steps change nothing."""
ENOUGH = 1e-6
"""Relative distance to the root at which a row is done: float32 rounding."""


def project(t: Tensor, w: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """Offsets d like `t`.

    Args:
        t: Points (n, D) in [0, 1].
        w: Normals (n, D).
        b: Offsets of the hyperplanes (n,).
        norm: What is minimised.
    """
    excess = (w * t).sum(dim=1) - b
    # Orient so that the excess is to be brought down to zero.
    sign = torch.where(excess >= 0, 1.0, -1.0).unsqueeze(1)
    direction = w * sign
    # Signs instead of masks: on CPUs a choice costs 20 times a product.
    rises = direction.sign().clamp_(max=0)  # -1 where d is positive, else 0
    room = (t + rises).abs_()
    weight = direction.abs()
    if norm != "Linf":  # the reference ignores tiny coordinates in L2 and L1
        room *= (weight - 1e-8).sign_().clamp_(min=0)
    need = excess.abs()
    if norm == "L1":
        size = _greedy(weight, room, need)
    else:
        size = _level(weight, room, need, norm)
    return direction.sign_().neg_().mul_(size)


def dual_lengths(w: Tensor, norm: Norm) -> Tensor:
    """Lengths (n, m) of normals (n, m, D) in the norm dual to `norm`.

    An excess divided by it is the distance to the hyperplane, were there no box.
    """
    duals: dict[Norm, Norm] = {"Linf": "L1", "L2": "L2", "L1": "Linf"}
    return lengths(w.flatten(0, 1), duals[norm]).view(w.shape[:2])


def _level(weight: Tensor, room: Tensor, need: Tensor, norm: Norm) -> Tensor:
    """Sizes min(level, room) (Linf) or min(level * weight, room) (L2)."""
    slope = weight if norm == "Linf" else weight.square()
    level = need / slope.sum(dim=1).clamp(min=1e-30)
    size, left = torch.empty_like(room), torch.empty_like(room)
    every = READ_EVERY.get(room.device.type, OTHERWISE)
    for step in range(NEWTON):
        wanted = level.unsqueeze(1) if norm == "Linf" else level.unsqueeze(1) * weight
        torch.minimum(wanted, room, out=size)
        lack = need - torch.mul(weight, size, out=left).sum(dim=1)
        below = torch.sub(room, wanted, out=left).sign_().clamp_(min=0)
        rest = below.mul_(slope).sum(dim=1)
        moving = (lack > ENOUGH * need) & (rest > 0)
        if step % every == every - 1 and not bool(moving.any()):
            break
        level = torch.where(moving, level + lack / rest.clamp(min=1e-30), level)
    return size


def _greedy(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """L1: whole rooms in order of weight, the last one in part."""
    ranked, order = weight.sort(dim=1, descending=True, stable=True)
    rooms = room.gather(1, order)
    gains = ranked * rooms
    before = gains.cumsum(dim=1) - gains
    left = (need.unsqueeze(1) - before).clamp(min=0)
    part = torch.minimum(rooms, left / ranked.clamp(min=1e-30))
    return torch.zeros_like(part).scatter(1, order, part)
