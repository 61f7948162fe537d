"""Checks of the gradient: is it there, is it right, does it lead anywhere?

Numbers refer to the table in docs/concepts/health.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robrep_eval.measures.health.subject import Subject
from zoo.ball import random_start
from zoo.classifier import double
from zoo.margins import cross_entropy, difference, margin, spread
from zoo.measurements import Flag, Status
from zoo.soundness import (
    AGREEMENT,
    broken,
    flat,
    input_gradient,
    ramp,
    slope,
    slope_error,
)

DIFFERENCE_STEPS = (1e-4, 1e-7)
"""Of pixels. A long one crosses the kinks of thousands of ReLUs; a short one drowns in
the rounding of a model that computes in float32 whatever it is given. One has to
agree."""
ASIDE = 1e-3
"""Of pixels. The slopes are taken at most so far from the image, inside the box."""
LIMIT = 0.01
"""Of the median of their relative differences."""
JUMP_STEPS, LEAP = (1e-4, 1e-6), 0.2
"""Of pixels; and the share of the change by the first that the second must not make."""


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
    noise = random_start(subject.x, subject.threat, subject.generator())
    logits = subject.logits(subject.x)
    moves = difference(logits, subject.logits(noise)) > AGREEMENT
    no_number = broken(gradient)
    useless = flat(gradient) & moves | no_number
    share = float(useless.float().mean())
    summary = "autograd reaches the pixels"
    if share > 0.01 and bool(no_number.any()):
        summary = (
            f"for {float(no_number.float().mean()):.0%} of the images a gradient of "
            "the logits is NaN or infinite (a root, a logarithm or a division at 0?): "
            "gradient attacks cannot follow it; mend that step"
        )
    elif share > 0.01:
        summary = (
            f"for {share:.0%} of the images every gradient of the logits is exactly 0 "
            "although the logits do change with the pixels (rounding, quantisation, "
            "JPEG?): attack through a differentiable approximation (BPDA)"
        )
    return Flag(
        check="differentiable",
        status=Status.FAIL if share > 0.01 else Status.PASS,
        summary=summary,
        value=share,
        limit=0.01,
        examples=subject.shown(useless),
    )


def _logit_gradient(subject: Subject) -> Tensor | None:
    """Gradient of a fixed combination of logits at x; None if the graph is cut."""
    parts = []
    for part in subject.x.split(subject.layout.batch_size):
        gradient = input_gradient(
            subject.classifier, part.to(subject.layout.device), ramp
        )
        if gradient is None:
            return None
        parts.append(gradient.cpu())
    return torch.cat(parts)


def gradient_agrees(subject: Subject) -> Flag:
    """4: autograd agrees with finite differences in float64 along random directions."""
    try:
        error_of = _slope_errors(subject)
    except (RuntimeError, TypeError, ValueError) as error:
        return Flag(
            check="gradient_agrees",
            status=Status.WARN,
            summary="autograd could not be compared with finite differences: "
            f"{str(error).splitlines()[0]}",
        )
    value = float(error_of.median())
    return Flag(
        check="gradient_agrees",
        status=Status.FAIL if value > LIMIT else Status.PASS,
        summary=(
            "autograd contradicts finite differences (a straight-through or broken "
            "gradient): white-box attacks follow a wrong direction"
            if value > LIMIT
            else "autograd agrees with finite differences"
        ),
        value=value,
        limit=LIMIT,
        examples=[subject.ids[i] for i in (error_of > LIMIT).nonzero().flatten()]
        if value > LIMIT
        else [],
    )


def _slope_errors(subject: Subject) -> Tensor:
    """Relative difference of the two slopes, per image (at most 32,).

    Beside the image: where pixels are equal, as in a white margin, a maximum has no
    slope, and autograd takes that of one of them. At the image too where logits leap.

    The median decides. So where the first half agrees by the short step, the rest,
    the other step and the image itself are not asked.
    """
    classifier = double(subject.classifier)
    x, direction = _points(subject, 0)
    beside, _ = _points(subject, ASIDE)
    half = slice((len(x) + 1) // 2)
    jumps = _jumps(classifier, x[half], direction[half])
    if not bool(jumps.any()):
        (few,) = _errors(
            classifier, beside[half], direction[half], DIFFERENCE_STEPS[1:]
        )
        if bool((few <= LIMIT).all()):
            return few
    jumps = _jumps(classifier, x, direction)
    error_of = _least(_errors(classifier, beside, direction, DIFFERENCE_STEPS))
    if bool(jumps.any()):
        error_at = _least(_errors(classifier, x, direction, DIFFERENCE_STEPS))
        error_of = torch.where(jumps, torch.maximum(error_of, error_at), error_of)
    return error_of


def _errors(
    classifier: nn.Module, x: Tensor, direction: Tensor, steps: Sequence[float]
) -> list[Tensor]:
    """Those of each step (n,), of one gradient."""
    claimed = slope(classifier, x, direction)
    return [
        slope_error(classifier, x, direction, step, claimed).cpu() for step in steps
    ]


def _least(errors: list[Tensor]) -> Tensor:
    """Those of the step that agrees best."""
    return min(errors, key=lambda error: float(error.median()))


def _points(subject: Subject, aside: float) -> tuple[Tensor, Tensor]:
    """Images in float64, moved inwards by up to `aside`, and a direction each."""
    generator = subject.generator()
    x = subject.x[:32].double()
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    inwards = torch.where(x < 0.5, aside, -aside)
    x = x + inwards * torch.rand(x.shape, generator=generator, dtype=x.dtype)
    return x.to(subject.layout.device), direction.to(subject.layout.device)


def _jumps(classifier: nn.Module, x: Tensor, direction: Tensor) -> Tensor:
    """Bool (n,): the logits leap at the image itself, as they do not where a maximum
    has ties: a hundredth of the step does not change them a hundredth as much."""
    with torch.no_grad():
        here = classifier(x)
        long, short = (
            difference(here, classifier(x + step * direction)) for step in JUMP_STEPS
        )
    return (short > LEAP * long).cpu()


def gradient_nonzero(subject: Subject) -> Flag:
    """5: the cross-entropy has a gradient at the image and at a random start.

    One that is NaN or infinite is none, whatever the prediction.
    """
    correct = subject.logits(subject.x).argmax(dim=1) == subject.y
    start = random_start(subject.x, subject.threat, subject.generator())
    gradients = [loss_gradient(subject, images) for images in (subject.x, start)]
    no_number = broken(gradients[0]) | broken(gradients[1])
    zero = (flat(gradients[0]) | flat(gradients[1])) & correct | no_number
    share = float(zero.float().mean())
    kind = "exactly 0 or no number" if bool(no_number.any()) else "exactly 0"
    status = Status.PASS if share == 0 else Status.WARN
    if share > 0.02:
        status = Status.FAIL
    return Flag(
        check="gradient_nonzero",
        status=status,
        summary=(
            f"the gradient of the cross-entropy is {kind} for {share:.1%} of the "
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
        images.split(subject.layout.batch_size),
        subject.y.split(subject.layout.batch_size),
        strict=True,
    ):
        y = labels.to(subject.layout.device)
        gradient = input_gradient(
            subject.classifier,
            part.to(subject.layout.device),
            lambda logits, y=y: cross_entropy(logits, y),  # type: ignore[misc]
        )
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
