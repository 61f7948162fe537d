"""Does the attack find adversarial examples that were planted for it?

Zimmermann et al. 2022, arXiv 2206.13991. The number refers to the table in
docs/concepts/health.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robrep_eval.attacks.pgd import reaches
from robrep_eval.measures.health.attack import RELATIVE_STEP, STEPS
from robrep_eval.measures.health.subject import Subject
from zoo.ball import random_start
from zoo.health_checks import PLANTS, planted_limit
from zoo.measurements import Flag, Status


def finds_planted(subject: Subject) -> Flag:
    """16: the attack finds adversarial examples that were put there."""
    plants = missed_plants(subject, subject.classifier.encoder)
    return Flag(
        check="finds_planted",
        status=Status.FAIL if plants.too_many else Status.PASS,
        summary=(
            f"the attack misses {plants.share:.0%} of adversarial examples that were "
            "planted for it: a surviving image proves nothing"
            if plants.too_many
            else "the attack finds planted adversarial examples"
        ),
        value=plants.share,
        limit=plants.limit,
        examples=plants.missed if plants.too_many else [],
    )


@dataclass(frozen=True)
class Plants:
    """What became of planted adversarials."""

    missed: list[int]
    """Ids of images whose own the attack did not find."""
    share: float
    limit: float
    """Of the share, by the number of images."""

    @property
    def too_many(self) -> bool:
        return self.share > self.limit


def missed_plants(subject: Subject, encoder: nn.Module) -> Plants:
    """Images whose planted adversarial the attack does not find.

    Each image gets a binary head of its own, on frozen features z: it separates g(x)
    from g(x'), where x' is a random point of the ball, by a plane at 0.9 of the way.
    So x' is adversarial for certain, and an attack that cannot cross the plane cannot
    be trusted anywhere (after Zimmermann et al. 2022, arXiv 2206.13991). It starts at
    the image and, for an honest encoder's odd local maximum, once more elsewhere.

    Args:
        subject: Its first images take part.
        encoder: g, images to (N, d).
    """
    x = subject.x[:PLANTS].to(subject.layout.device)
    generator = subject.generator()
    with torch.no_grad():
        z = encoder(x)
        far = random_start(x, subject.threat, generator)
        direction = encoder(far) - z
    size = direction.square().sum(dim=1)
    usable = size > 0
    missed = usable
    for start in (x, random_start(x, subject.threat, generator)):
        left = missed.nonzero().flatten()

        def share(images: Tensor, rows: Tensor, left: Tensor = left) -> Tensor:
            rows = left[rows]
            along = ((encoder(images) - z[rows]) * direction[rows]).sum(dim=1)
            part: Tensor = along / size[rows] + 0 * images.flatten(1).sum(dim=1)
            return part

        found = reaches(
            share,
            x[left],
            subject.threat,
            above=0.9,
            steps=STEPS,
            step_size=RELATIVE_STEP * subject.threat.eps,
            start=start[left],
        )
        missed = missed.index_fill(0, left[found], value=False)
    missed, usable = missed.cpu(), usable.cpu()
    total = int(usable.sum())
    return Plants(
        missed=subject.shown(missed),
        share=int(missed.sum()) / max(1, total),
        limit=planted_limit(len(subject.x)),
    )
