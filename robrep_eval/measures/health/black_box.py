"""Do attacks without gradients find what white-box attacks missed, and why?

The number refers to the table in docs/concepts/health.md. AutoAttack's own flag warns
where Square lowers the accuracy by more than 0.2 points. That happens to honest models
too, whose last few images are hard for any attack of fixed length, and it overlooks two
images of a hundred behind a decoy. So such images get a second look by more white-box
attacks. Those that fall to it were a matter of effort; what stands is compared with
what stands of honest encoders, by Fisher's exact test.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robrep_eval.attacks.battery import is_black_box
from robrep_eval.measures.health.honest import HIDDEN, allowed
from robrep_eval.measures.health.second_look import second_look
from robrep_eval.measures.health.subject import MAX_SHOWN, Subject
from zoo.measurements import Flag, Status
from zoo.records import Examples, Outcome, Proportion

FAIL_ABOVE = 0.02
"""Share of all images; the whole interval has to lie above it."""


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
    met, rows, standing = unled(subject, black)
    most = allowed(met, HIDDEN)
    hidden = len(standing) > most
    total = len(examples.index)
    summary = (
        f"{', '.join(black)} fooled {len(rows)} images ({len(rows) / total:.1%}) that "
        "the white-box attacks missed"
    )
    if len(rows) > len(standing):
        summary += f"; {len(rows) - len(standing)} of them fall to longer ones"
    status = _status(len(rows), len(standing), total, hidden)
    if status is not Status.PASS:
        summary += (
            f": {len(standing)} of {met} are hidden from gradients, which "
            f"lead there among honest encoders (all but {most} of as many)"
            if hidden
            else ": the battery's white-box attacks are too short for this model"
        )
    return Flag(
        check="white_box_beats_black_box",
        status=status,
        summary=summary,
        value=len(standing) / max(1, met),
        limit=most / max(1, met),
        examples=[examples.index[row] for row in standing.tolist()[:MAX_SHOWN]],
    )


def unled(subject: Subject, black: list[str]) -> tuple[int, Tensor, Tensor]:
    """What black-box attacks did on images that the white-box ones left.

    Args:
        subject: With outcomes.
        black: Names of the black-box attacks among them.

    Returns:
        How many such images they met; the rows that they fooled; and those of the rows
        that stand after a second look by gradients.
    """
    examples = subject.examples
    assert examples is not None
    white = [name for name in examples.outcomes if name not in black]
    left = ~_any(examples, white, Outcome.FOOLED)
    met = left & _any(examples, black, Outcome.FOOLED, Outcome.HELD)
    rows = (left & _any(examples, black, Outcome.FOOLED)).nonzero().flatten()
    return int(met.sum()), rows, second_look(subject, rows) if len(rows) else rows


def _status(missed: int, standing: int, total: int, hidden: bool) -> Status:
    if hidden:
        many = _at_least(standing, total) > FAIL_ABOVE
        return Status.FAIL if many else Status.WARN
    return Status.WARN if _at_least(missed, total) > FAIL_ABOVE else Status.PASS


def _at_least(count: int, total: int) -> float:
    """Lower end of the share's exact 95% interval: single images are no evidence."""
    return Proportion.of(count, total).low


def _any(examples: Examples, names: list[str], *wanted: Outcome) -> Tensor:
    """Bool (n,): some attack of these came to one of the outcomes."""
    columns = [[o in wanted for o in examples.outcomes[name]] for name in names]
    return torch.tensor(columns).any(dim=0)
