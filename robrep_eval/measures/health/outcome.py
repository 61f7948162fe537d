"""Checks of what the battery came to; they attack nothing themselves.

Numbers refer to the table in docs/concepts/health.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robrep_eval.measures.health.subject import MAX_SHOWN, Subject
from zoo.ball import lengths
from zoo.measurements import Flag, Status
from zoo.records import Outcome
from zoo.verdicts import verdicts

BLOCK = 256
"""Adversarials that are compared together."""


def worst_case(subject: Subject) -> Flag:
    """17: the figure counts the worst attack of each image, not the mean of figures."""
    examples = subject.examples
    wrong: list[int] = []
    if examples is not None:
        again = verdicts(examples)
        pairs = zip(examples.index, examples.verdict, again, strict=True)
        wrong = [index for index, stored, found in pairs if stored is not found]
    return Flag(
        check="worst_case",
        status=Status.FAIL if wrong else Status.PASS,
        summary=(
            f"{len(wrong)} verdicts do not follow from the outcomes of the attacks"
            if wrong
            else "verdicts are the worst case over all attacks, image by image"
        ),
        value=float(len(wrong)),
        limit=0.0,
        examples=wrong[:MAX_SHOWN],
    )


def inside_the_ball(subject: Subject) -> Flag:
    """18: every counted adversarial is finite, in [0, 1] and in the ball (float64)."""
    images, origins = subject.adversarials, subject.origins
    bad, largest = 0, 0.0
    if images is not None and origins is not None and len(images):
        limit = subject.threat.eps + subject.threat.tolerance(tuple(images.shape[1:]))
        for start in range(0, len(images), BLOCK):
            rows = slice(start, start + BLOCK)
            found, clean = images[rows], origins
            clean = clean[rows] if isinstance(clean, Tensor) else clean.images(rows)
            distance = lengths(found.double() - clean.double(), subject.threat.norm)
            inside = (found >= 0) & (found <= 1)  # False for NaN
            fine = inside.flatten(1).all(dim=1) & (distance <= limit)
            bad += int((~fine).sum())
            largest = max(largest, float(distance.nan_to_num(torch.inf).max()))
    refused = _refused(subject)
    return Flag(
        check="inside_the_ball",
        status=Status.FAIL if bad or refused else Status.PASS,
        summary=(
            f"{bad} counted adversarials break the threat model"
            if bad
            else f"{len(refused)} proposals broke the threat model and did not count"
            if refused
            else "every counted adversarial lies in the ball and in [0, 1]"
        ),
        value=largest,
        limit=subject.threat.eps,
        examples=refused[:MAX_SHOWN],
    )


def _refused(subject: Subject) -> list[int]:
    """Positions of images with a refused proposal."""
    examples = subject.examples
    if examples is None:
        return []
    return [
        index
        for row, index in enumerate(examples.index)
        if any(c[row] is Outcome.REFUSED for c in examples.outcomes.values())
    ]
