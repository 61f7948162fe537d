"""Checks of the gradient: is it there, is it right, does it lead anywhere?

Numbers refer to the table in docs/truth.md.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from robrep_eval.measures.health.subject import (
    AGREEMENT,
    Subject,
    difference,
    margin,
    spread,
)
from zoo.ball import random_start
from zoo.classifier import double
from zoo.measurements import Flag, Status

DIFFERENCE_STEPS = (1e-4, 1e-7)
"""Of pixels. A long one crosses the kinks of thousands of ReLUs; a short one drowns in
the rounding of a model that computes in float32 whatever it is given. One has to
agree."""


def differentiable(subject: Subject) -> Flag:
    """4: autograd reaches the input from the logits, and finds something there."""
    gradient = _logit_gradient(subject)
    if gradient is None:
        return Flag(
            check="differentiable",
            status=Status.FAIL,
            summary="the graph from logits to pixels is cut (detach, numpy, no_grad): "
            "gradient attacks cannot work; attack through a differentiable "
            "approximation (BPDA) and with black-box attacks",
        )
    zero = (gradient.flatten(1) == 0).all(dim=1)
    noise = random_start(subject.x, subject.threat, subject.generator())
    logits = subject.logits(subject.x)
    moves = difference(logits, subject.logits(noise)) > AGREEMENT
    broken = zero & moves
    share = float(broken.float().mean())
    return Flag(
        check="differentiable",
        status=Status.FAIL if share > 0.01 else Status.PASS,
        summary=(
            f"for {share:.0%} of the images every gradient of the logits is exactly 0 "
            "although the logits do change with the pixels (rounding, quantisation, "
            "JPEG?): attack through a differentiable approximation (BPDA)"
            if share > 0.01
            else "autograd reaches the pixels"
        ),
        value=share,
        limit=0.01,
        examples=subject.shown(broken),
    )


def _logit_gradient(subject: Subject) -> Tensor | None:
    """Gradient of a fixed combination of logits at x; None if the graph is cut."""
    parts = []
    for part in subject.x.split(subject.batch_size):
        leaf = part.to(subject.device).requires_grad_()
        with torch.enable_grad():
            logits = subject.classifier(leaf)
            if not logits.requires_grad:
                return None
            weights = torch.linspace(-1, 1, logits.shape[1], device=logits.device)
            (gradient,) = torch.autograd.grad(
                (logits * weights).sum(), leaf, allow_unused=True
            )
        if gradient is None:
            return None
        parts.append(gradient.cpu())
    return torch.cat(parts)


def gradient_agrees(subject: Subject) -> Flag:
    """4: autograd agrees with finite differences in float64 along random directions."""
    try:
        errors = [_difference_error(subject, step) for step in DIFFERENCE_STEPS]
    except (RuntimeError, TypeError, ValueError) as error:
        return Flag(
            check="gradient_agrees",
            status=Status.WARN,
            summary="autograd could not be compared with finite differences: "
            f"{str(error).splitlines()[0]}",
        )
    error_of = min(errors, key=lambda e: float(e.median()))
    value = float(error_of.median())
    return Flag(
        check="gradient_agrees",
        status=Status.FAIL if value > 0.01 else Status.PASS,
        summary=(
            "autograd contradicts finite differences (a straight-through or broken "
            "gradient): white-box attacks follow a wrong direction"
            if value > 0.01
            else "autograd agrees with finite differences"
        ),
        value=value,
        limit=0.01,
        examples=[subject.ids[i] for i in (error_of > 0.01).nonzero().flatten()]
        if value > 0.01
        else [],
    )


def _difference_error(subject: Subject, step: float) -> Tensor:
    """Relative difference of the two slopes, per image (at most 32,)."""
    model = double(subject.classifier)
    x = subject.x[:32].double()
    direction = torch.randn(x.shape, generator=subject.generator(), dtype=x.dtype)
    direction = direction.to(subject.device)
    x = x.to(subject.device).requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        weights = torch.linspace(-1, 1, logits.shape[1]).to(logits)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), x)
    with torch.no_grad():
        above = (model(x + step * direction) * weights).sum(dim=1)
        below = (model(x - step * direction) * weights).sum(dim=1)
    slope = (above - below) / (2 * step)
    claimed = (gradient * direction).flatten(1).sum(dim=1)
    scale = torch.maximum(slope.abs(), claimed.abs()).clamp(min=1e-12)
    error: Tensor = (slope - claimed).abs() / scale
    return error.cpu()


def gradient_nonzero(subject: Subject) -> Flag:
    """5: the cross-entropy has a gradient at the image and at a random start."""
    correct = subject.logits(subject.x).argmax(dim=1) == subject.y
    start = random_start(subject.x, subject.threat, subject.generator())
    zero = torch.zeros(len(subject.x), dtype=torch.bool)
    for images in (subject.x, start):
        gradient = loss_gradient(subject, images)
        zero |= (gradient.flatten(1) == 0).all(dim=1)
    zero &= correct
    share = float(zero.float().mean())
    status = Status.PASS if share == 0 else Status.WARN
    if share > 0.02:
        status = Status.FAIL
    return Flag(
        check="gradient_nonzero",
        status=status,
        summary=(
            f"the gradient of the cross-entropy is exactly 0 for {share:.1%} of the "
            "images (saturated logits?): attacks on that loss stand still; use losses "
            "free of scale (DLR, margin) or divide the logits"
            if share
            else "no gradient of the cross-entropy is zero"
        ),
        value=share,
        limit=0.02,
        examples=subject.shown(zero),
    )


def loss_gradient(subject: Subject, images: Tensor) -> Tensor:
    """Gradient of the cross-entropy with respect to pixels; zeros if the graph is
    cut."""
    parts = []
    for part, labels in zip(
        images.split(subject.batch_size),
        subject.y.split(subject.batch_size),
        strict=True,
    ):
        leaf = part.detach().to(subject.device).requires_grad_()
        with torch.enable_grad():
            logits = subject.classifier(leaf)
            loss = cross_entropy(logits, labels.to(logits.device), reduction="sum")
            gradient = None
            if loss.requires_grad:
                (gradient,) = torch.autograd.grad(loss, leaf, allow_unused=True)
        parts.append(torch.zeros_like(part) if gradient is None else gradient.cpu())
    return torch.cat(parts)


def smooth_loss(subject: Subject) -> Flag:
    """6: the margin hardly changes under tiny random offsets.

    Relative to the spread of the logits and for offsets of eps / 20: relative to the
    loss itself, as the published indicator has it, every confident model fails.
    """
    logits = subject.logits(subject.x)
    generator = subject.generator()
    offsets = subject.threat.model_copy(update={"eps": subject.threat.eps / 20})
    change = torch.zeros(len(logits))
    for _ in range(10):
        moved = subject.logits(random_start(subject.x, offsets, generator))
        change += (margin(moved, subject.y) - margin(logits, subject.y)).abs() / 10
    relative = change / spread(logits)
    value = float(relative.mean())
    return Flag(
        check="smooth_loss",
        status=Status.FAIL if value > 0.1 else Status.PASS,
        summary=(
            "the loss jumps under offsets of eps / 20: gradients say little about "
            "where to go (random or shattered gradients); average them (EoT)"
            if value > 0.1
            else "the loss is smooth on the scale of a step"
        ),
        value=value,
        limit=0.1,
        examples=subject.shown(relative > 0.1) if value > 0.1 else [],
    )
