"""Checks of the attacks: do they behave as attacks on an honest model do?

Numbers refer to the table in docs/concepts/health.md. They use an attack of their own
(PGD on the cross-entropy), so that they say something whatever battery was chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from robrep_eval.attacks.pgd import ascend_each
from robrep_eval.measures.health.subject import Subject
from zoo import margins
from zoo.ball import project, random_start, steepest
from zoo.measurements import EPS_FACTORS, EpsCurve, EpsPoint, Flag, Status
from zoo.records import Proportion
from zoo.soundness import input_gradient
from zoo.threat import ThreatModel

STEPS = 40
RELATIVE_STEP = 0.1
RANDOM_DRAWS = 20

Loss = Callable[[Tensor, Tensor], Tensor]


def margin_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Largest other logit minus that of the label (N,)."""
    return -margins.margin(logits, y)


def probability_margin(logits: Tensor, y: Tensor) -> Tensor:
    """The same of probabilities."""
    return -margins.probability_margin(logits, y)


def pgd(
    subject: Subject,
    threat: ThreatModel,
    *,
    steps: int = STEPS,
    loss: Loss = margins.cross_entropy,
    restart: int = 0,
    keep_best: bool = True,
) -> Tensor:
    """Attacked images; zero gradients (a cut graph) leave the random start."""
    return ascend_each(
        _objective(subject, loss),
        subject.x,
        subject.y,
        threat,
        steps=steps,
        step_size=RELATIVE_STEP * threat.eps,
        layout=subject.layout,
        generator=torch.Generator().manual_seed(subject.seed + restart),
        keep_best=keep_best,
    )


def _objective(subject: Subject, loss: Loss) -> Loss:
    """The loss of images; a model without a graph still gives one, of gradient zero."""

    def objective(images: Tensor, labels: Tensor) -> Tensor:
        value = loss(subject.classifier(images), labels)
        return value + 0 * images.flatten(1).sum(dim=1)

    return objective


def held(subject: Subject, images: Tensor) -> Tensor:
    """Bool (N,): classified correctly."""
    return subject.logits(images).argmax(dim=1) == subject.y


def survives(subject: Subject, threat: ThreatModel) -> Tensor:
    """Bool (N,): correct when clean and at every iterate of PGD; see `pgd`.

    An image that falls leaves: where all fall, this costs a few passes.
    """
    generator = torch.Generator().manual_seed(subject.seed)
    stands = held(subject, subject.x)
    for rows in torch.arange(len(subject.x)).split(subject.layout.batch_size):
        start = random_start(subject.x[rows], threat, generator)
        current, rows = start[stands[rows]], rows[stands[rows]]
        for _ in range(STEPS):
            if not len(rows):
                break
            right, moved = _step(subject, current, rows, threat)
            stands[rows[~right]] = False
            current, rows = moved[right], rows[right]
        if len(rows):
            end = replace(subject, x=subject.x[rows], y=subject.y[rows])
            stands[rows[~held(end, current)]] = False
    return stands


def _step(
    subject: Subject, current: Tensor, rows: Tensor, threat: ThreatModel
) -> tuple[Tensor, Tensor]:
    """Which of the iterates are correct, and the next ones; both on the CPU.

    A gradient that is cut or no number moves nothing.
    """
    device = subject.layout.device
    x, y = subject.x[rows].to(device), subject.y[rows].to(device)
    right = torch.ones(len(rows), dtype=torch.bool)

    def loss(logits: Tensor) -> Tensor:
        right.copy_(logits.argmax(dim=1) == y)
        return margins.cross_entropy(logits, y)

    gradient = input_gradient(subject.classifier, current.to(device), loss)
    at = current.to(device)
    if gradient is not None:
        at = at + RELATIVE_STEP * threat.eps * steepest(
            gradient.nan_to_num(0.0, 0.0, 0.0), threat.norm
        )
    return right, project(at, x, threat).cpu()


def pgd_at_eps(subject: Subject) -> Tensor:
    """Which images hold against PGD at the radius of the run; computed once."""
    if "pgd" not in subject.cache:
        subject.cache["pgd"] = survives(subject, subject.threat)
    found: Tensor = subject.cache["pgd"]
    return found


def eps_curve(subject: Subject) -> EpsCurve:
    """Accuracy under PGD at several radii, each attacked anew; computed once."""
    if "curve" not in subject.cache:
        correct = held(subject, subject.x)
        points = [EpsPoint(eps=0.0, robust=_share(correct))]
        for factor in EPS_FACTORS[1:]:
            if factor == 1:
                robust = pgd_at_eps(subject)
            else:
                wider = subject.threat.model_copy(
                    update={"eps": factor * subject.threat.eps}
                )
                robust = survives(subject, wider)
            points.append(
                EpsPoint(eps=factor * subject.threat.eps, robust=_share(robust))
            )
        subject.cache["curve"] = EpsCurve(attack=f"PGD-{STEPS}", points=points)
    found: EpsCurve = subject.cache["curve"]
    return found


def _share(mask: Tensor) -> Proportion:
    return Proportion.of(int(mask.sum()), len(mask))


def eps_monotone(subject: Subject) -> Flag:
    """9: a larger radius never helps the defender."""
    points = eps_curve(subject).points
    rises = [b.robust.k - a.robust.k for a, b in pairwise(points)]
    slack = max(1, round(0.01 * len(subject.x)))
    worst = max(rises)
    return Flag(
        check="eps_monotone",
        status=Status.FAIL if worst > slack else Status.PASS,
        summary=(
            f"a larger radius leaves {worst} more images standing: the attack does not "
            "find what is there"
            if worst > slack
            else "accuracy falls as the radius grows"
        ),
        value=float(worst),
        limit=float(slack),
    )


def large_eps_breaks(subject: Subject) -> Flag:
    """10: an attack without bounds brings accuracy to chance or below."""
    diameter = subject.x[0].numel() ** (1 / subject.threat.order)
    everywhere = subject.threat.model_copy(update={"eps": float(diameter)})
    robust = survives(subject, everywhere)
    chance = 1 / subject.classifier.classes
    value = float(robust.float().mean())
    return Flag(
        check="large_eps_breaks",
        status=Status.FAIL if value > chance else Status.PASS,
        summary=(
            f"{value:.1%} of the images survive an attack that may change every pixel "
            "at will: it cannot use the gradient (masked, zero or random)"
            if value > chance
            else "an unbounded attack breaks the model"
        ),
        value=value,
        limit=chance,
        examples=subject.shown(robust) if value > chance else [],
    )


def stronger_beats_weaker(subject: Subject) -> Flag:
    """11: PGD fools whatever one step or random noise fools, per example."""
    iterated = pgd_at_eps(subject)
    weaker = held(subject, _one_step(subject))
    generator = subject.generator()
    for _ in range(RANDOM_DRAWS):
        weaker &= held(subject, random_start(subject.x, subject.threat, generator))
    missed = iterated & ~weaker
    value = float(missed.float().mean())
    limit = max(0.01, 1.5 / len(missed))
    return Flag(
        check="stronger_beats_weaker",
        status=Status.FAIL if value > limit else Status.PASS,
        summary=(
            f"one step or random noise fools {value:.1%} of the images that {STEPS} "
            "steps of PGD miss: the iterations go astray"
            if value > limit
            else "iterated attacks find what weaker ones find"
        ),
        value=value,
        limit=limit,
        examples=subject.shown(missed) if value > limit else [],
    )


def _one_step(subject: Subject) -> Tensor:
    """FGSM from the clean image."""
    return ascend_each(
        _objective(subject, margins.cross_entropy),
        subject.x,
        subject.y,
        subject.threat,
        steps=1,
        step_size=subject.threat.eps,
        layout=subject.layout,
    )
