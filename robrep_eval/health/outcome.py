"""Checks of what the battery came to; they attack nothing themselves.

Numbers refer to the table in docs/truth.md.
"""

from __future__ import annotations

import torch

from robrep_eval.health.subject import MAX_SHOWN, Subject
from zoo.ball import lengths
from zoo.measurements import Flag, Status
from zoo.records import Outcome
from zoo.verdicts import verdicts

BLACK_BOX = ("square", "hopskipjump", "boundary", "transfer", "universal")
"""Attacks that never ask for a gradient of the attacked model, by the first part of
their names (transfer:zoo:NAME)."""


def white_box_beats_black_box(subject: Subject) -> Flag:
    """12: attacks without gradients fool nothing that white-box attacks missed."""
    examples = subject.examples
    names = list(examples.outcomes) if examples else []
    black = [name for name in names if name.split(":")[0] in BLACK_BOX]
    white = [name for name in names if name not in black]
    if not examples or not black or not white:
        return Flag(
            check="white_box_beats_black_box",
            status=Status.PASS,
            summary="not judged: the battery has no pair of white-box and black-box "
            "attacks",
        )
    by_white = _fooled_by_any(examples.outcomes, white)
    by_black = _fooled_by_any(examples.outcomes, black)
    extra = [b and not w for w, b in zip(by_white, by_black, strict=True)]
    gain = sum(extra) / len(extra)
    status = Status.PASS
    if gain > 0.002 and sum(extra) > 1:
        status = Status.WARN
    if gain > 0.02 and sum(extra) > 2:
        status = Status.FAIL
    return Flag(
        check="white_box_beats_black_box",
        status=status,
        summary=(
            f"{', '.join(black)} fooled {sum(extra)} images ({gain:.1%}) that the "
            "white-box attacks missed: gradients are masked or the white-box attacks "
            "too short"
            if status is not Status.PASS
            else f"{', '.join(black)} fooled {sum(extra)} images that the white-box "
            "attacks missed"
        ),
        value=gain,
        limit=0.002,
        examples=[
            index for index, hit in zip(examples.index, extra, strict=True) if hit
        ][:MAX_SHOWN],
    )


def _fooled_by_any(outcomes: dict[str, list[Outcome]], names: list[str]) -> list[bool]:
    columns = [outcomes[name] for name in names]
    return [
        any(column[row] is Outcome.FOOLED for column in columns)
        for row in range(len(columns[0]))
    ]


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
        distance = lengths(images.double() - origins.double(), subject.threat.norm)
        limit = subject.threat.eps + subject.threat.tolerance(tuple(images.shape[1:]))
        inside = (images >= 0) & (images <= 1)  # False for NaN
        fine = inside.flatten(1).all(dim=1) & (distance <= limit)
        bad, largest = int((~fine).sum()), float(distance.nan_to_num(torch.inf).max())
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
