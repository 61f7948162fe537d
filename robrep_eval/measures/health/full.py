"""The dearer checks, run with --health full: converged, consistent, and transferable.

Numbers refer to the table in docs/concepts/health.md.
"""

from __future__ import annotations

import torch
from torch import nn

from robrep_eval.measures.health.attack import (
    STEPS,
    held,
    margin_loss,
    pgd,
    probability_margin,
)
from robrep_eval.measures.health.planted import missed_plants
from robrep_eval.measures.health.subject import Subject
from zoo.classifier import Classifier, double
from zoo.margins import cross_entropy, difference, margin
from zoo.measurements import Flag, Status
from zoo.soundness import AGREEMENT


def silent_success(subject: Subject) -> Flag:
    """7: the last iterate hides no success of an earlier one."""
    last = held(subject, pgd(subject, subject.threat, keep_best=False))
    best = held(subject, pgd(subject, subject.threat))
    missed = last & ~best
    value = float(missed.float().mean())
    return Flag(
        check="silent_success",
        status=Status.WARN if value > 0.01 else Status.PASS,
        summary=(
            f"PGD walked through an adversarial of {value:.1%} of the images and left "
            "it again: read the whole path, not its end"
            if value > 0.01
            else "attacks end where they succeed"
        ),
        value=value,
        limit=0.01,
        examples=subject.shown(missed),
    )


def converged(subject: Subject) -> Flag:
    """8: twice the iterations change robust accuracy by less than half a point."""
    once = held(subject, pgd(subject, subject.threat))
    twice = held(subject, pgd(subject, subject.threat, steps=2 * STEPS))
    missed = once & ~twice
    limit = max(0.005, 1.5 / len(once))
    value = float(once.float().mean() - twice.float().mean())
    return Flag(
        check="converged",
        status=Status.WARN if value > limit else Status.PASS,
        summary=(
            f"doubling the steps lowers robust accuracy by {100 * value:.1f} points: "
            "use more"
            if value > limit
            else "doubling the steps changes nothing that counts"
        ),
        value=value,
        limit=limit,
        examples=subject.shown(missed) if value > limit else [],
    )


def twin_transfer(subject: Subject) -> Flag:
    """13: adversarials of a twin (same encoder, another head) fool no more."""
    classifier = subject.classifier
    head = classifier.linear
    if head is None:
        return Flag(
            check="twin_transfer",
            status=Status.PASS,
            summary="not judged: a ready-made classifier has no twin with another head",
        )
    twin = Classifier(
        classifier.encoder,
        _nearest_mean_head(subject, head),
        classes=classifier.classes,
        shape=classifier.shape,
    ).to(subject.layout.device)
    other = Subject(
        classifier=twin,
        x=subject.x,
        y=subject.y,
        ids=subject.ids,
        threat=subject.threat,
        seed=subject.seed,
        layout=subject.layout,
    )
    white = held(subject, pgd(subject, subject.threat))
    white &= held(subject, pgd(subject, subject.threat, restart=1))
    moved = held(subject, pgd(other, subject.threat))
    missed = white & ~moved & held(subject, subject.x)
    value = float(missed.float().mean())
    limit = max(0.02, 2.5 / len(missed))
    failed = value > limit
    return Flag(
        check="twin_transfer",
        status=Status.FAIL if failed else Status.PASS,
        summary=(
            f"adversarials of a twin with another head fool {value:.1%} of the images "
            "that the direct attack misses: the head hides the gradient"
            if failed
            else "adversarials of a twin with another head fool no more"
        ),
        value=value,
        limit=limit,
        examples=subject.shown(missed) if failed else [],
    )


def _nearest_mean_head(subject: Subject, head: nn.Linear) -> nn.Linear:
    """Answers the class whose mean feature is nearest: linear in z."""
    with torch.no_grad():
        z = torch.cat(
            [
                subject.classifier.features(part.to(subject.layout.device)).cpu()
                for part in subject.x.split(subject.layout.batch_size)
            ]
        )
    twin = nn.Linear(head.in_features, head.out_features)
    for label in range(head.out_features):
        members = z[subject.y == label]
        mean = members.mean(dim=0) if len(members) else z.mean(dim=0)
        twin.weight.data[label] = mean
        twin.bias.data[label] = -mean.square().sum() / 2
    return twin.requires_grad_(False)


def loss_consistent(subject: Subject) -> Flag:
    """14: where the attack's loss is higher, the margin is smaller."""
    from scipy.stats import spearmanr

    logits = subject.logits(pgd(subject, subject.threat))
    loss, left = cross_entropy(logits, subject.y), margin(logits, subject.y)
    value = -float(spearmanr(loss.numpy(), left.numpy()).statistic)
    bad = not value > 0
    return Flag(
        check="loss_consistent",
        status=Status.FAIL if bad else Status.PASS,
        summary=(
            "a higher attack loss does not go with a smaller margin: the loss is the "
            "wrong one for this model"
            if bad
            else "a higher attack loss goes with a smaller margin"
        ),
        value=None if value != value else value,
        limit=0.0,
    )


def losses_agree(subject: Subject) -> Flag:
    """15: three losses and three starts come to the same accuracy."""
    outcomes = [
        held(subject, pgd(subject, subject.threat, loss=loss, restart=restart))
        for loss in (cross_entropy, margin_loss, probability_margin)
        for restart in range(3)
    ]
    per_loss = [torch.stack(outcomes[3 * i : 3 * i + 3]).all(dim=0) for i in range(3)]
    shares = [float(mask.float().mean()) for mask in per_loss]
    worst = torch.stack(per_loss).all(dim=0)
    value = shares[0] - float(worst.float().mean())
    limit = max(0.02, 2.5 / len(worst))
    return Flag(
        check="losses_agree",
        status=Status.WARN if value > limit else Status.PASS,
        summary=(
            f"other losses fool {100 * value:.1f} points more than the cross-entropy: "
            "quote none of them alone"
            if value > limit
            else "cross-entropy, margin and probability margin agree"
        ),
        value=value,
        limit=limit,
        examples=subject.shown(per_loss[0] & ~worst) if value > limit else [],
    )


def precision(subject: Subject) -> Flag:
    """21: float64 gives the same predictions for the attacked images."""
    images = pgd(subject, subject.threat)
    logits = subject.logits(images)
    try:
        model = double(subject.classifier)
        with torch.no_grad():
            exact = model(images.double().to(subject.layout.device)).cpu()
    except (RuntimeError, TypeError, ValueError) as error:
        return Flag(
            check="precision",
            status=Status.WARN,
            summary=f"the model does not run in float64: {str(error).splitlines()[0]}",
        )
    fragile = (logits.argmax(dim=1) != exact.argmax(dim=1)) | (
        difference(exact, logits.double()) > 10 * AGREEMENT
    )
    value = float(fragile.float().mean())
    return Flag(
        check="precision",
        status=Status.WARN if value > 0.01 else Status.PASS,
        summary=(
            f"float64 and float32 disagree on {value:.1%} of the attacked images: "
            "verdicts are fragile"
            if value > 0.01
            else "float64 confirms the predictions"
        ),
        value=value,
        limit=0.01,
        examples=subject.shown(fragile),
    )


def breaks_control(subject: Subject) -> Flag:
    """22: the attack breaks a control that defends nothing.

    Adversarial examples planted in pixel space, without the encoder: planes between
    images, whose gradient nothing can hide. An attack that misses them has the wrong
    steps or radius, whatever the model.
    """
    plants = missed_plants(subject, nn.Flatten())
    return Flag(
        check="breaks_control",
        status=Status.FAIL if plants.too_many else Status.PASS,
        summary=(
            f"the attack misses {plants.share:.0%} of adversarial examples of a "
            "control that defends nothing: its steps do not fit this radius or these "
            "pixels"
            if plants.too_many
            else "the attack breaks a control that defends nothing"
        ),
        value=plants.share,
        limit=plants.limit,
        examples=plants.missed if plants.too_many else [],
    )
