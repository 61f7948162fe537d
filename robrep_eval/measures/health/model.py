"""Checks of the classifier itself: is it a fixed function of one image?

Numbers refer to the table in docs/concepts/health.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from robrep_eval.measures.health.subject import MAX_SHOWN, Subject
from robrep_eval.randomness import seeded
from zoo.ball import random_start
from zoo.classifier import Classifier
from zoo.margins import difference
from zoo.measurements import Flag, Status
from zoo.soundness import AGREEMENT, in_other_company, probabilities, repeated


def deterministic(subject: Subject) -> Flag:
    """1: five passes over the same batch give the same logits."""
    worst = repeated(subject.logits, subject.x, passes=5)
    subject.cache["repeat"] = float(worst.max())
    broken = worst > AGREEMENT
    return Flag(
        check="deterministic",
        status=Status.FAIL if bool(broken.any()) else Status.PASS,
        summary=(
            "the logits change from pass to pass: single attacks mean little; average "
            "gradients over the randomness (battery 'rand') and vote over many passes"
            if bool(broken.any())
            else "five passes give the same logits"
        ),
        value=float(worst.max()),
        limit=AGREEMENT,
        examples=subject.shown(broken),
    )


ASKED = 16
"""Images whose answers may not depend on earlier questions ..."""
ASKED_BEFORE = 4
"""... which are so many near copies of each."""


def stateless(subject: Subject) -> Flag:
    """26: no answer depends on what was asked before.

    Of two copies one is asked images like those of an attack first, and both the same
    images then, with the same random numbers. And what was predicted when the run
    began is predicted still.
    """
    new = (subject.x[:ASKED] + subject.x[:ASKED].roll(1, 0).flip(-1)) / 2
    near = subject.threat.model_copy(update={"eps": subject.threat.eps / 10})
    generator = subject.generator()
    before = [random_start(new, near, generator) for _ in range(ASKED_BEFORE)]
    fresh = _last_answer(subject, [new])
    moved = float(difference(fresh, _last_answer(subject, [*before, new])).max())
    changed = moved > AGREEMENT
    other = _other_predictions(subject)
    return Flag(
        check="stateless",
        status=Status.FAIL if changed or other else Status.PASS,
        summary=(
            "an answer depends on what was asked before (the model remembers queries, "
            "or wears off): its figures depend on the order of the attack; switch that "
            "off, and attack the model without it"
            if changed
            else f"{len(other)} clean images are not predicted as when the run began: "
            "the model changes while it is asked"
            if other
            else "no answer depends on what was asked before"
        ),
        value=None if other and not changed else moved,
        limit=AGREEMENT,
        examples=other,
    )


def _last_answer(subject: Subject, asked: Sequence[Tensor]) -> Tensor:
    """What a copy that is as the model is now answers at last."""
    try:
        copy: Classifier = deepcopy(subject.classifier)
    except Exception:  # foreign modules fail in many ways
        copy = subject.classifier
    answer = asked[0]
    for images in asked:
        with seeded(subject.seed, subject.layout.device), torch.no_grad():
            answer = copy(images.to(subject.layout.device)).cpu()
    return answer


def _other_predictions(subject: Subject) -> list[int]:
    """Ids of images that are not predicted as the record says."""
    if subject.examples is None:
        return []
    first = subject.logits(subject.x)
    if bool((difference(first, subject.logits(subject.x)) > AGREEMENT).any()):
        return []  # random: another check says so
    then = dict(
        zip(subject.examples.index, subject.examples.clean_prediction, strict=True)
    )
    now = first.argmax(dim=1).tolist()
    top = first.topk(2, dim=1).values
    sure = (top[:, 0] - top[:, 1] > AGREEMENT * top[:, 0].abs()).tolist()
    return [
        index
        for index, label, clear in zip(subject.ids, now, sure, strict=True)
        if clear and then.get(index, -1) not in (label, -1)
    ][:MAX_SHOWN]


def batch_independent(subject: Subject) -> Flag:
    """2: an image's logits depend neither on its batch nor on its place in it."""
    order = torch.randperm(len(subject.x), generator=subject.generator())
    worst = in_other_company(subject.logits, subject.x, order, alone=16)
    # Random logits differ anyway; only what exceeds that counts here.
    limit = max(AGREEMENT, 10 * subject.cache.get("repeat", 0.0))
    broken = worst > limit
    return Flag(
        check="batch_independent",
        status=Status.FAIL if bool(broken.any()) else Status.PASS,
        summary=(
            "an image's logits depend on the other images of its batch (batch norm in "
            "train mode?): figures depend on how images are batched; put the model in "
            "eval mode"
            if bool(broken.any())
            else "logits do not depend on the batch or the place in it"
        ),
        value=float(worst.max()),
        limit=limit,
        examples=subject.shown(broken),
    )


def gives_logits(subject: Subject) -> Flag:
    """3: outputs are logits, not probabilities.

    The targeted DLR loss needs four classes and the DLR loss three; the engine does
    without them below that.
    """
    logits = subject.logits(subject.x)
    few = logits.shape[1] < 4
    status, summary = Status.PASS, "outputs are logits of four or more classes"
    if bool(probabilities(logits).all()):
        status = Status.FAIL
        summary = (
            "outputs are probabilities (non-negative, sum to 1): the cross-entropy of "
            "probabilities has almost no gradient; remove the softmax at the end"
        )
    elif bool(probabilities(logits.exp()).all()):
        summary = "outputs are log-probabilities, which serve as logits"
    elif few:
        summary = (
            f"outputs are logits of {logits.shape[1]} classes: too few for the DLR "
            "losses, which attacks replace by the bare margin or are left out (the "
            "notes say which)"
        )
    return Flag(check="logits", status=status, summary=summary)


def static_forward(subject: Subject) -> Flag:
    """19: the forward pass runs no optimisation of its own."""
    few = subject.x[:8].clone().to(subject.layout.device)
    with torch.no_grad(), _counted_autograd() as calls:
        subject.classifier(few)
    return Flag(
        check="static_forward",
        status=Status.FAIL if calls else Status.PASS,
        summary=(
            "the forward pass itself calls autograd (test-time optimisation): attack "
            "the model without that step, then through it, and report its cost; such "
            "defences seldom improve on their static model (Croce et al. 2022)"
            if calls
            else "the forward pass runs no optimisation of its own"
        ),
        value=float(len(calls)),
        limit=0.0,
    )


@contextmanager
def _counted_autograd() -> Iterator[list[str]]:
    """Collects calls of autograd's entry points."""
    calls: list[str] = []

    def counting(name: str, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        return call

    with (
        mock.patch.object(
            torch.autograd, "grad", counting("grad", torch.autograd.grad)
        ),
        mock.patch.object(
            torch.autograd, "backward", counting("backward", torch.autograd.backward)
        ),
    ):
        yield calls


def input_range(subject: Subject) -> Flag:
    """20: the classifier expects pixels in [0, 1], not in 0-255."""
    plain = _accuracy(subject, subject.x)
    scaled = _accuracy(subject, subject.x * 255)
    broken = scaled > plain + 0.1
    return Flag(
        check="input_range",
        status=Status.FAIL if broken else Status.PASS,
        summary=(
            f"clean accuracy is {plain:.1%} on pixels in [0, 1] but {scaled:.1%} on "
            "pixels in 0-255: the model divides by 255 itself; remove that, or eps "
            "means something else than it says"
            if broken
            else "the classifier works on pixels in [0, 1]"
        ),
        value=scaled - plain,
        limit=0.1,
    )


def clean_first(subject: Subject) -> Flag:
    """20: the classifier beats chance before anyone attacks it.

    Of all images of the battery, where there was one: of few, honest ones may not. One
    that was undecided counts as wrong.
    """
    if subject.examples is None:
        y, guess = subject.y, subject.logits(subject.x).argmax(dim=1)
    else:
        y = torch.tensor(subject.examples.label)
        guess = torch.tensor(subject.examples.clean_prediction)
    found = float((guess == y).float().mean())
    chance = float(torch.bincount(y).max()) / len(y)
    limit = chance + 2 * (chance * (1 - chance) / len(y)) ** 0.5
    return Flag(
        check="clean_first",
        status=Status.PASS if found > limit else Status.WARN,
        summary=(
            f"clean accuracy is {found:.1%}"
            if found > limit
            else f"clean accuracy is {found:.1%}, no better than always answering the "
            f"commonest class ({chance:.1%}): its robustness means nothing"
        ),
        value=found,
        limit=limit,
    )


def _accuracy(subject: Subject, x: Tensor) -> float:
    return float((subject.logits(x).argmax(dim=1) == subject.y).float().mean())
