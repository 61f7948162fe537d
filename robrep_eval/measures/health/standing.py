"""Attacks of other kinds on images that the battery left standing.

Only an image that stands can be wrong in a figure. Each check here fools some of a
sample of them by means that the battery does not have; an honest encoder loses one now
and then too, and a count is compared with that by Fisher's exact test.

Numbers refer to the table in docs/concepts/health.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robrep_eval.attacks.pgd import ascend_each
from robrep_eval.measures.health.attack import (
    RELATIVE_STEP,
    held,
    margin_loss,
    pgd_at_eps,
)
from robrep_eval.measures.health.decisions import OTHERS, Rays
from robrep_eval.measures.health.honest import (
    DECISIONS,
    LOSSES,
    SURROGATES,
    Rate,
    allowed,
)
from robrep_eval.measures.health.subject import Subject
from robrep_eval.measures.health.surrogate import DRAWS, distilled, smoothed
from zoo.margins import cross_entropy
from zoo.measurements import Flag, Status
from zoo.records import Proportion, Verdict

QUERIES = 1000
STEPS = 30
SMOOTHED_STEPS = 20
LEARNED_FROM = 512
"""Images whose classes the distilled copy learns."""
FAIL_ABOVE = 0.1
"""Share of the standing images; the whole interval has to lie above it."""

Raise = Callable[[Tensor, Tensor], Tensor]


def one_logit(logits: Tensor, y: Tensor) -> Tensor:
    """That of the class, whatever the others do, (n,)."""
    return logits.gather(1, y.unsqueeze(1)).squeeze(1)


def sample(subject: Subject) -> Subject:
    """Images that stand, at most `subject.standing`, spread over all of them."""
    if "standing" not in subject.cache:
        x, y, ids = subject.x, subject.y, subject.ids
        if subject.examples is not None and subject.whole is not None:
            verdicts = subject.examples.verdict
            rows = [i for i, v in enumerate(verdicts) if v is Verdict.ROBUST]
            rows = _spread(rows, subject.standing)
            at = torch.tensor(rows, dtype=torch.int64)
            x, y = subject.whole.images(at), subject.whole.labels[at]
            ids = [subject.examples.index[row] for row in rows]
        else:
            rows = pgd_at_eps(subject).nonzero().flatten().tolist()
            rows = _spread(rows, subject.standing)
            x, y, ids = x[rows], y[rows], [ids[row] for row in rows]
        subject.cache["standing"] = replace(subject, x=x, y=y, ids=ids, cache={})
    found: Subject = subject.cache["standing"]
    return found


def _spread(rows: list[int], count: int) -> list[int]:
    """So many of the rows, evenly."""
    if len(rows) <= count:
        return rows
    return [rows[at * len(rows) // count] for at in range(count)]


def other_losses(subject: Subject) -> Flag:
    """23: other losses from other starts fool no more of what stands."""
    some = sample(subject)
    stands = torch.ones(len(some.x), dtype=torch.bool)
    if len(some.x):
        towards = (one_logit, _nearest_class(some))
        raised = ((margin_loss, some.y), (cross_entropy, some.y), towards)
        for found in _pgd(some, some.classifier, raised, subject.generator(), STEPS):
            stands &= held(some, found)
    return _flag(
        "other_losses",
        some,
        stands,
        LOSSES,
        found="short attacks on other losses (margin, cross-entropy, one logit)",
        means="the battery's loss is misled or its attacks end too early",
    )


def decision_probe(subject: Subject) -> Flag:
    """24: an attack that sees decisions alone fools no more of what stands."""
    some = sample(subject)
    stands = torch.ones(len(some.x), dtype=torch.bool)
    if len(some.x):
        decided = subject.logits(subject.x[: 8 * OTHERS]).argmax(dim=1)
        first = _one_of_each(decided)

        def wrong(images: Tensor, labels: Tensor) -> Tensor:
            return subject.logits(images).argmax(dim=1) != labels

        rays = Rays(wrong, some.x, some.y, subject.threat, QUERIES)
        stands = held(some, rays.images(subject.x[first], decided[first]))
    return _flag(
        "decision_probe",
        some,
        stands,
        DECISIONS,
        found=f"{QUERIES} questions for decisions alone",
        means="gradients and logits hide what the decisions show",
    )


def surrogate(subject: Subject) -> Flag:
    """25: attacks on a smoothed and a distilled copy fool no more of what stands."""
    some = sample(subject)
    stands = torch.ones(len(some.x), dtype=torch.bool)
    if len(some.x):
        generator = subject.generator()
        copy = smoothed(subject.classifier, subject.threat, generator)
        size = max(1, some.layout.batch_size // DRAWS)  # a pass takes all draws
        few = replace(some, layout=replace(some.layout, batch_size=size))
        raised = ((margin_loss, some.y), (cross_entropy, some.y))
        (found,) = _pgd(few, copy, raised[:1], generator, SMOOTHED_STEPS)
        stands &= held(some, found)
        known = (
            subject.x
            if subject.whole is None
            else subject.whole.images(
                torch.arange(min(LEARNED_FROM, len(subject.whole)))
            )
        )
        decided = subject.logits(known).argmax(dim=1)
        student = distilled(
            known, decided, subject.classifier.classes, subject.threat, generator
        ).to(subject.layout.device)
        for found in _pgd(some, student, raised, generator, STEPS):
            stands &= held(some, found)
    return _flag(
        "surrogate",
        some,
        stands,
        SURROGATES,
        found="attacks made for a smoothed or a distilled copy",
        means="the classifier's own gradient hides what its copies show",
    )


def _one_of_each(decided: Tensor) -> list[int]:
    """The first image of each class."""
    first = {int(label): at for at, label in reversed(list(enumerate(decided)))}
    return sorted(first.values())


def _nearest_class(subject: Subject) -> Tensor:
    """The likeliest wrong class of each image (n,)."""
    logits = subject.logits(subject.x)
    return logits.scatter(1, subject.y.unsqueeze(1), -torch.inf).argmax(dim=1)


def _pgd(
    subject: Subject,
    logits: Callable[[Tensor], Tensor],
    raised: Sequence[tuple[Raise, Tensor]],
    generator: torch.Generator,
    steps: int,
) -> Sequence[Tensor]:
    """Images attacked with each loss and its labels (n,), all in the same passes.

    A copy without a graph leaves the random start.
    """
    n = len(subject.x)
    labels = torch.cat([y for _, y in raised]).to(subject.layout.device)

    def objective(images: Tensor, rows: Tensor) -> Tensor:
        given, y = logits(images), labels[rows]
        parts = [
            loss(given[rows // n == number], y[rows // n == number])
            for number, (loss, _) in enumerate(raised)
        ]  # in the order of the rows
        return torch.cat(parts) + 0 * images.flatten(1).sum(dim=1)

    found = ascend_each(
        objective,
        subject.x.repeat(len(raised), 1, 1, 1),
        torch.arange(len(labels)),
        subject.threat,
        steps=steps,
        step_size=RELATIVE_STEP * subject.threat.eps,
        layout=subject.layout,
        generator=generator,
        keep_best=True,
    )
    return found.chunk(len(raised))


def _flag(
    check: str, some: Subject, stands: Tensor, honest: Rate, *, found: str, means: str
) -> Flag:
    """A count of fallen images, compared with that of honest encoders."""
    total = len(stands)
    if not total:
        return Flag(
            check=check, status=Status.PASS, summary="not judged: no image stands"
        )
    fell, most = int((~stands).sum()), allowed(total, honest)
    status = Status.PASS
    if fell > most:
        many = Proportion.of(fell, total).low > FAIL_ABOVE
        status = Status.FAIL if many else Status.WARN
    summary = f"{found} fool {fell} of {total} images that stand"
    if fell > most:
        summary += f", of honest encoders no more than {most}: {means}"
    return Flag(
        check=check,
        status=status,
        summary=summary,
        value=fell / total,
        limit=most / total,
        examples=some.shown(~stands) if fell > most else [],
    )
