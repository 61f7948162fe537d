"""Checks of the attacks: do they behave as attacks on an honest model do?

Numbers refer to the table in docs/concepts/health.md. They use an attack of their own
(PGD on the cross-entropy), so that they say something whatever battery was chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from robrep_eval.attacks.pgd import ascend_each
from robrep_eval.measures.health.subject import Subject
from zoo import margins
from zoo.ball import project, random_start, steepest
from zoo.health_checks import limit_of
from zoo.measurements import EPS_FACTORS, EpsCurve, EpsPoint, Flag, Status
from zoo.records import Proportion
from zoo.soundness import AGREEMENT, input_gradient
from zoo.threat import ThreatModel

STEPS = 40
RELATIVE_STEP = 0.1
RANDOM_DRAWS = 20
UNBOUNDED = 0.1
"""Share of images that may survive an attack without bounds: honest encoders are at 0
to 0.09, also with two classes."""

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


def survives(subject: Subject, threats: Sequence[ThreatModel]) -> Tensor:
    """Correct when clean and at every iterate of PGD (see `pgd`), bool (balls, N).

    Several balls of one norm are attacked in the same passes.

    An image that falls leaves: where all fall, this costs a few passes. So does one
    whose iterates repeat, as signs make them do once each pixel stands at an end or
    goes back and forth: all that could follow was seen, unless logits were found to
    change from pass to pass.
    """
    most = subject.layout.batch_size
    if len(threats) > most:  # no pass is larger, as memory may hold no more
        parts = (threats[at : at + most] for at in range(0, len(threats), most))
        return torch.cat([survives(subject, part) for part in parts])
    stands = held(subject, subject.x).repeat(len(threats), 1)
    generators = [subject.generator() for _ in threats]
    size = most // len(threats)
    for rows in torch.arange(len(subject.x)).split(size):
        some = stands[0, rows].clone()
        starts = [
            random_start(subject.x[rows], threat, generator)[some]
            for threat, generator in zip(threats, generators, strict=True)
        ]
        for ball, row in _fallen(subject, threats, rows[some], torch.cat(starts)):
            stands[ball, row] = False
    return stands


def _fallen(
    subject: Subject, threats: Sequence[ThreatModel], rows: Tensor, current: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers of balls and rows where an iterate is wrong, as they are found."""
    balls = torch.arange(len(threats)).repeat_interleave(len(rows))
    rows, before = rows.repeat(len(threats)), current
    steady = subject.cache.get("repeat", 0.0) <= AGREEMENT
    for _ in range(STEPS):
        if not len(rows):
            return
        right, moved = _step(subject, current, rows, balls, threats)
        yield balls[~right], rows[~right]
        left = right
        if steady:
            left = right & ~_same(moved, current) & ~_same(moved, before)
        before, current = current[left], moved[left]
        balls, rows = balls[left], rows[left]
    if len(rows):
        end = replace(subject, x=subject.x[rows], y=subject.y[rows])
        wrong = ~held(end, current)
        yield balls[wrong], rows[wrong]


def _same(images: Tensor, others: Tensor) -> Tensor:
    """Bool (n,): equal in all pixels."""
    return (images == others).flatten(1).all(dim=1)


def _step(
    subject: Subject,
    current: Tensor,
    rows: Tensor,
    balls: Tensor,
    threats: Sequence[ThreatModel],
) -> tuple[Tensor, Tensor]:
    """Which of the iterates are correct, and the next ones; both on the CPU.

    A gradient that is cut or no number moves nothing. The balls are in order.
    """
    device = subject.layout.device
    y = subject.y[rows].to(device)
    right = torch.ones(len(rows), dtype=torch.bool)

    def loss(logits: Tensor) -> Tensor:
        right.copy_(logits.argmax(dim=1) == y)
        return margins.cross_entropy(logits, y)

    gradient = input_gradient(subject.classifier, current.to(device), loss)
    ways = torch.zeros_like(current) if gradient is None else gradient.cpu()
    counts = torch.bincount(balls, minlength=len(threats)).tolist()
    parts = (each.split(counts) for each in (current, ways, subject.x[rows]))
    moved = [
        project(
            at
            + RELATIVE_STEP
            * threat.eps
            * steepest(way.nan_to_num(0.0, 0.0, 0.0), threat.norm),
            x,
            threat,
        )
        for threat, at, way, x in zip(threats, *parts, strict=True)
        if len(at)
    ]
    return right, torch.cat(moved)


def at_radii(subject: Subject) -> Tensor:
    """Bool (radii, N): what holds against PGD; computed once.

    At each radius of the curve but 0, and at last at one that holds every image.
    """
    if "pgd" not in subject.cache:
        diameter = subject.x[0].numel() ** (1 / subject.threat.order)
        radii = [factor * subject.threat.eps for factor in EPS_FACTORS[1:]]
        threats = [
            subject.threat.model_copy(update={"eps": eps})
            for eps in (*radii, float(diameter))
        ]
        subject.cache["pgd"] = survives(subject, threats)
    found: Tensor = subject.cache["pgd"]
    return found


def pgd_at_eps(subject: Subject) -> Tensor:
    """Which images hold against PGD at the radius of the run, bool (N,)."""
    return at_radii(subject)[EPS_FACTORS.index(1.0) - 1]


def eps_curve(subject: Subject) -> EpsCurve:
    """Accuracy under PGD at several radii, each attacked anew; computed once."""
    if "curve" not in subject.cache:
        found = [held(subject, subject.x), *at_radii(subject)[:-1]]
        points = [
            EpsPoint(eps=factor * subject.threat.eps, robust=_share(robust))
            for factor, robust in zip(EPS_FACTORS, found, strict=True)
        ]
        subject.cache["curve"] = EpsCurve(attack=f"PGD-{STEPS}", points=points)
    curve: EpsCurve = subject.cache["curve"]
    return curve


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
    """10: an attack without bounds brings accuracy to a tenth, or chance if lower.

    Of 16 images of an honest encoder two or three may stand all the same.
    """
    robust = at_radii(subject)[-1]
    limit = limit_of(len(robust), min(UNBOUNDED, 1 / subject.classifier.classes))
    value = float(robust.double().mean())
    return Flag(
        check="large_eps_breaks",
        status=Status.FAIL if value > limit else Status.PASS,
        summary=(
            f"{value:.1%} of the images survive an attack that may change every pixel "
            "at will: it cannot use the gradient (masked, zero or random)"
            if value > limit
            else "an unbounded attack breaks the model"
        ),
        value=value,
        limit=limit,
        examples=subject.shown(robust) if value > limit else [],
    )


def stronger_beats_weaker(subject: Subject) -> Flag:
    """11: PGD fools whatever one step or random noise fools, per example."""
    missed = pgd_at_eps(subject).clone()
    left = missed.nonzero().flatten()
    if len(left):
        some = replace(subject, x=subject.x[left], y=subject.y[left])
        stands = held(some, _one_step(some))
        generator = subject.generator()
        for _ in range(RANDOM_DRAWS):
            stands &= held(some, random_start(some.x, some.threat, generator))
        missed[left[stands]] = False
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
