"""Do attacks without gradients find what white-box attacks missed, and why?

The number refers to the table in docs/concepts/health.md. AutoAttack's own flag warns
where Square lowers the accuracy by more than 0.2 points. That happens to honest models
too, whose last few images are hard for any attack of fixed length, so such images get a
second look by more white-box attacks: other losses, more restarts, and starts like
Square's. Those that fall to it were a matter of effort; those that stand have an
adversarial that gradients do not lead to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from robrep_eval.attacks.battery import is_black_box
from robrep_eval.attacks.pgd import ascend
from robrep_eval.measures.health.attack import (
    RELATIVE_STEP,
    held,
    margin_loss,
    probability_margin,
)
from robrep_eval.measures.health.subject import MAX_SHOWN, Subject
from zoo.ball import random_start
from zoo.margins import cross_entropy
from zoo.measurements import Flag, Status
from zoo.records import Examples, Outcome, Proportion
from zoo.threat import ThreatModel

LOSSES = (margin_loss, probability_margin, cross_entropy)
LOOKED_AT = 64
"""Images that get a second look at most; the rest count as unexplained."""
LOOK_STEPS = 100
LOOK_ROUNDS = 2
"""Each runs every loss from every kind of start."""
WARN_ABOVE = 0.002
"""AutoAttack's own limit; the whole interval of the share has to lie above it."""
FAIL_ABOVE = 0.02


def white_box_beats_black_box(subject: Subject) -> Flag:
    """12: attacks without gradients fool nothing that gradients cannot lead to."""
    examples = subject.examples
    names = list(examples.outcomes) if examples else []
    black = [name for name in names if is_black_box(name, subject.threat.norm)]
    white = [name for name in names if name not in black]
    if not examples or not black or not white:
        return Flag(
            check="white_box_beats_black_box",
            status=Status.PASS,
            summary="not judged: the battery has no pair of white-box and black-box "
            "attacks",
        )
    rows = _missed(examples, white, black)
    standing = _second_look(subject, rows) if len(rows) else rows
    total = len(examples.index)
    summary = (
        f"{', '.join(black)} fooled {len(rows)} images ({len(rows) / total:.1%}) that "
        "the white-box attacks missed"
    )
    if len(rows) > len(standing):
        summary += f"; {len(rows) - len(standing)} of them fall to longer ones"
    status = _status(len(rows), len(standing), total)
    if status is not Status.PASS:
        hidden = _at_least(len(standing), total) > WARN_ABOVE
        summary += (
            ": gradients are masked, do not lead there"
            if hidden
            else ": the battery's white-box attacks are too short for this model"
        )
    return Flag(
        check="white_box_beats_black_box",
        status=status,
        summary=summary,
        value=len(standing) / total,
        limit=WARN_ABOVE,
        examples=[examples.index[row] for row in standing.tolist()[:MAX_SHOWN]],
    )


def _status(missed: int, standing: int, total: int) -> Status:
    if _at_least(standing, total) > FAIL_ABOVE:
        return Status.FAIL
    hidden = _at_least(standing, total) > WARN_ABOVE
    short = _at_least(missed, total) > FAIL_ABOVE
    return Status.WARN if hidden or short else Status.PASS


def _at_least(count: int, total: int) -> float:
    """Lower end of the share's exact 95% interval: single images are no evidence."""
    return Proportion.of(count, total).low


def _missed(examples: Examples, white: list[str], black: list[str]) -> Tensor:
    """Rows fooled by a black-box attack and by no white-box one."""
    by_white = _fooled_by_any(examples, white)
    by_black = _fooled_by_any(examples, black)
    return (by_black & ~by_white).nonzero().flatten()


def _fooled_by_any(examples: Examples, names: list[str]) -> Tensor:
    columns = [
        [outcome is Outcome.FOOLED for outcome in examples.outcomes[name]]
        for name in names
    ]
    return torch.tensor(columns).any(dim=0)


def _second_look(subject: Subject, rows: Tensor) -> Tensor:
    """Those of the rows that still stand after longer white-box attacks."""
    if subject.whole is None:
        return rows
    some, rest = rows[:LOOKED_AT], rows[LOOKED_AT:]
    part = replace(
        subject, x=subject.whole.images(some), y=subject.whole.labels[some], cache={}
    )
    x, y, threat = (
        part.x.to(part.layout.device),
        part.y.to(part.layout.device),
        part.threat,
    )
    standing = torch.ones(len(some), dtype=torch.bool)
    generator = part.generator()
    for _ in range(LOOK_ROUNDS):
        for loss, start in product(LOSSES, _starts(part.x, threat, generator)):
            found = ascend(
                lambda images, loss=loss: loss(part.classifier(images), y),  # type: ignore[misc]
                x,
                threat,
                steps=LOOK_STEPS,
                step_size=RELATIVE_STEP * threat.eps,
                start=start.to(part.layout.device),
                keep_best=True,
            )
            standing &= held(part, found.cpu())
    return torch.cat([some[standing], rest])


def _starts(
    x: Tensor, threat: ThreatModel, generator: torch.Generator
) -> Iterator[Tensor]:
    """Uniform in the ball; a sign for each pixel; vertical and horizontal stripes."""
    n, c, h, w = x.shape
    yield random_start(x, threat, generator)
    for shape in ((n, c, h, w), (n, c, 1, w), (n, c, h, 1)):
        yield x + threat.eps * torch.randn(shape, generator=generator).sign()
