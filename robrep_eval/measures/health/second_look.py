"""Longer white-box attacks on images that another attack fooled: effort, or masking?

An adversarial that gradients lead to was missed for want of effort: other losses, more
restarts, starts like Square's, and starts on the way to what was found. One that
gradients do not lead to even from half way is hidden from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from robrep_eval.attacks.pgd import ascend
from robrep_eval.measures.health.attack import (
    RELATIVE_STEP,
    held,
    margin_loss,
    probability_margin,
)
from robrep_eval.measures.health.subject import Subject
from zoo.ball import random_start
from zoo.margins import cross_entropy

LOSSES = (margin_loss, probability_margin, cross_entropy)
LOOKED_AT = 64
"""Images that get a second look at most; the rest count as unexplained."""
LOOK_STEPS = 100
LOOK_ROUNDS = 2
"""Each runs every loss from every kind of start."""
WAYS = (0.5, 0.8)
"""Starts between the image and where the line to what was found leaves its class."""
WAY_STEP = 0.05
"""Of eps: shorter, as the boundary is near."""
BISECTIONS = 10


def second_look(subject: Subject, rows: Tensor) -> Tensor:
    """Those of the rows (k,) of `examples` that still stand after longer attacks."""
    if subject.whole is None:
        return rows
    some, rest = rows[:LOOKED_AT], rows[LOOKED_AT:]
    part = replace(
        subject, x=subject.whole.images(some), y=subject.whole.labels[some], cache={}
    )
    standing = torch.ones(len(some), dtype=torch.bool)
    at, found = _what_was_found(subject, some)
    if len(at):
        near = replace(part, x=part.x[at], y=part.y[at])
        end = _last_correct(near, found)
        for way, loss in product(WAYS, LOSSES):
            start = near.x + way * (end - near.x)
            standing[at] &= _holds(near, loss, start, WAY_STEP)
    generator = part.generator()
    for _ in range(LOOK_ROUNDS):
        for loss, start in product(LOSSES, _starts(part, generator)):
            if bool(standing.any()):
                left = replace(part, x=part.x[standing], y=part.y[standing])
                fell = ~_holds(left, loss, start[standing], RELATIVE_STEP)
                standing[standing.nonzero().flatten()[fell]] = False
    return torch.cat([some[standing], rest])


def _what_was_found(subject: Subject, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Places (m,) in `rows` of images with a counted adversarial, and those."""
    images, owners = subject.adversarials, subject.owners
    if images is None or owners is None:
        return rows[:0], subject.x[:0]
    of = {int(row): at for at, row in enumerate(owners)}
    pairs = [(i, of[int(row)]) for i, row in enumerate(rows) if int(row) in of]
    at = torch.tensor([i for i, _ in pairs], dtype=torch.int64)
    return at, images[[j for _, j in pairs]]


def _last_correct(subject: Subject, found: Tensor) -> Tensor:
    """Where the line from each image to what was found leaves its class."""
    low, high = torch.zeros(len(found)), torch.ones(len(found))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        right = held(subject, _between(subject.x, found, middle))
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return _between(subject.x, found, low)


def _between(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return x + share.view(-1, 1, 1, 1) * (other - x)


def _holds(subject: Subject, loss: object, start: Tensor, step: float) -> Tensor:
    """Bool (n,): correct after a long attack from these starts."""
    x, y = subject.x.to(subject.layout.device), subject.y.to(subject.layout.device)
    found = ascend(
        lambda images: loss(subject.classifier(images), y),  # type: ignore[operator]
        x,
        subject.threat,
        steps=LOOK_STEPS,
        step_size=step * subject.threat.eps,
        start=start.to(x),
        keep_best=True,
    )
    return held(subject, found.cpu())


def _starts(subject: Subject, generator: torch.Generator) -> Iterator[Tensor]:
    """Uniform in the ball; a sign for each pixel; vertical and horizontal stripes."""
    x, eps = subject.x, subject.threat.eps
    n, c, h, w = x.shape
    yield random_start(x, subject.threat, generator)
    for shape in ((n, c, h, w), (n, c, 1, w), (n, c, h, 1)):
        yield x + eps * torch.randn(shape, generator=generator).sign()
