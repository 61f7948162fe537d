"""The bound on adversarial loss: clean loss, head constant and displacement.

For a linear head s = W z + b on features z = g(x) and cross-entropy l,

    max_delta l(g(x + delta), y) <= l(g(x), y) + C_y R(x),                          (B1)
    max_delta l <= log(1 + sum_{j != y} exp(s_j - s_y + ||w_j - w_y|| R(x))),       (B2)

with C_y = max_j ||w_j - w_y||_2 and R(x) = max_delta ||g(x + delta) - g(x)||_2. B1
follows from the mean value theorem, B2 from Cauchy-Schwarz on each logit difference
and never exceeds B1. The idea of splitting adversarial loss into clean loss and a
task-free displacement is Nguyen, Lim & Torr 2022 (arXiv 2203.07596); these two
statements are derived anew.

Attacks give a LOWER estimate of R, so what comes out here are *estimates*: nothing in
this file is a certificate. `zoo.lipschitz` proves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.classifier import Classifier
from zoo.errors import UserError
from zoo.layout import ON_CPU, Layout
from zoo.margins import cross_entropy
from zoo.measurements import BoundEstimate, Limit
from zoo.records import Proportion

MAX_PAIRS = 2000
"""Examples among which pairwise distances are taken."""


def head_distances(weight: Tensor) -> Tensor:
    """||w_j - w_k||_2 of all rows of (K, d); (K, K), float64, zero diagonal."""
    rows = weight.double()
    return (rows.unsqueeze(1) - rows.unsqueeze(0)).square().sum(dim=2).sqrt()


def head_constants(weight: Tensor, y: Tensor) -> Tensor:
    """C_y of each label: the Lipschitz constant of the cross-entropy in z; (N,)."""
    return head_distances(weight).amax(dim=1)[y]


def bound_b1(logits: Tensor, y: Tensor, weight: Tensor, displacement: Tensor) -> Tensor:
    """(B1) for each example, float64 (N,).

    Args:
        logits: At the clean images (N, K).
        y: Labels (N,).
        weight: Of the linear head (K, d).
        displacement: R(x), L2 in feature space (N,).
    """
    reach = head_constants(weight, y) * displacement.double()
    return cross_entropy(logits.double(), y) + reach


def bound_b2(logits: Tensor, y: Tensor, weight: Tensor, displacement: Tensor) -> Tensor:
    """(B2) for each example, float64 (N,); arguments as for `bound_b1`."""
    s = logits.double()
    rise = head_distances(weight)[y] * displacement.double().unsqueeze(1)  # (N, K)
    # The diagonal of the distances is zero, so column y is s_y - s_y + 0 = 0: the 1.
    return (s - s.gather(1, y.unsqueeze(1)) + rise).logsumexp(dim=1)


def margins(logits: Tensor, weight: Tensor) -> Tensor:
    """Distance from each feature to its nearest decision boundary, float64 (N,).

    The prediction cannot change while the feature moves less than this. Classes with
    equal rows have no boundary between them: one that ties or leads gives 0, one that
    trails never overtakes (infinity).
    """
    s = logits.double()
    top = s.argmax(dim=1, keepdim=True)
    gaps = s.gather(1, top) - s  # (N, K), 0 at the prediction
    lengths = head_distances(weight)[top.squeeze(1)]
    parallel = torch.where(gaps > 0, torch.inf, 0.0).double()
    reach = torch.where(lengths > 0, gaps / lengths.clamp(min=1e-300), parallel)
    return reach.scatter(1, top, torch.inf).amin(dim=1)


def halfway(z: Tensor, y: Tensor) -> Tensor:
    """Half the distance from each feature to the nearest of another label; (N,).

    Two examples of different classes cannot both keep their prediction against
    displacements of more than half their distance, whatever the head. Infinity if
    there is no other label.
    """
    distances = torch.cdist(z.double(), z.double())
    distances[y.unsqueeze(1) == y.unsqueeze(0)] = torch.inf
    return distances.amin(dim=1) / 2


def median_distance(z: Tensor) -> float:
    """Median L2 distance of two different features: the scale of an encoder."""
    distances = torch.nn.functional.pdist(z[:MAX_PAIRS].double())
    return float(distances.median()) if len(distances) else 0.0


def limits(
    correct: Tensor, margin: Tensor, displacement: Tensor, room: Tensor
) -> list[Limit]:
    """What keeps each example from passing the margin test (see `Limit`).

    Args:
        correct: Bool (N,), the clean prediction is the label.
        margin: `margins` (N,).
        displacement: R (N,).
        room: `halfway` (N,).
    """

    def one(right: bool, passes: bool, fits: bool) -> Limit:
        if not right:
            return Limit.FIT
        if passes:
            return Limit.NONE
        return Limit.HEAD if fits else Limit.ENCODER

    rows = zip(
        correct.tolist(),
        (margin > displacement).tolist(),
        (displacement < room).tolist(),
        strict=True,
    )
    return [one(*row) for row in rows]


@dataclass(frozen=True)
class Reached:
    """What a set of candidate images reached, per example."""

    displacement: Tensor
    """Largest ||g(x') - g(x)||, float64 (N,)."""
    loss: Tensor
    """Largest cross-entropy, the clean image included, float64 (N,)."""
    by: Tensor
    """Which candidate moved farthest, index into the mapping's order (N,)."""


def reach(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    candidates: Mapping[str, Tensor],
    layout: Layout = ON_CPU,
) -> Reached:
    """Displacement and loss, both the maximum over all candidates.

    A weak displacement attack alone would let the adversarial loss of a stronger
    attack exceed the estimated bound; over the same set of images it cannot.

    Args:
        classifier: With a linear head.
        x: Clean images (N, C, H, W).
        y: Labels (N,).
        candidates: Images like `x` by attack name, all inside the threat model.
        layout: Where the classifier lives, and images per forward pass.
    """
    z, logits = features_and_logits(classifier, x, layout)
    loss = cross_entropy(logits.double(), y)
    moved = [loss.new_zeros(len(x))]
    for images in candidates.values():
        z_adv, logits_adv = features_and_logits(classifier, images, layout)
        moved.append((z_adv - z).square().sum(dim=1).sqrt())
        loss = torch.maximum(loss, cross_entropy(logits_adv.double(), y))
    displacement, by = torch.stack(moved).max(dim=0)
    return Reached(displacement, loss, by - 1)


def features_and_logits(
    classifier: Classifier, x: Tensor, layout: Layout
) -> tuple[Tensor, Tensor]:
    """z (N, d) and W z + b (N, K), both float64 on the CPU.

    The head is applied in float64, so that the inequalities hold without slack for
    the features the encoder gives.
    """
    head = linear_head(classifier)
    with torch.inference_mode():
        parts = [
            classifier.features(part.to(layout.device)).double().cpu()
            for part in x.split(layout.batch_size)
        ]
    z = torch.cat(parts)
    logits = z @ head.weight.double().cpu().T
    if head.bias is not None:
        logits = logits + head.bias.double().cpu()
    return z, logits


def linear_head(classifier: Classifier) -> nn.Linear:
    """The head; raises `UserError` for a classifier without a linear one."""
    if classifier.linear is None:
        raise UserError(
            "the bound and the margin certificate need a linear head on features, but "
            "this classifier came ready-made; evaluate the encoder with a probe"
        )
    return classifier.linear


def estimate_bound(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    candidates: Mapping[str, Tensor],
    *,
    settings: Mapping[str, Any] | None = None,
    layout: Layout = ON_CPU,
) -> BoundEstimate:
    """All of the above for one classifier, per example and on average.

    Args:
        classifier: With a linear head.
        x: Clean images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        candidates: Perturbed images like `x` by attack name; those of the displacement
            attack and of every other attack at hand.
        settings: Recorded beside the figures.
        layout: Where the classifier lives, and images per forward pass.

    Raises:
        UserError: the classifier has no linear head.
    """
    weight = linear_head(classifier).weight.detach().cpu()
    z, logits = features_and_logits(classifier, x, layout)
    reached = reach(classifier, x, y, candidates, layout)
    strongest = {
        name: int((reached.by == at).sum()) for at, name in enumerate(candidates)
    }
    return from_reached(
        (z, logits),
        y,
        weight,
        (reached.displacement, reached.loss),
        strongest=strongest,
        settings=dict(settings or {}),
    )


def from_reached(
    clean: tuple[Tensor, Tensor],
    y: Tensor,
    weight: Tensor,
    reached: tuple[Tensor, Tensor],
    *,
    strongest: dict[str, int],
    settings: dict[str, Any],
) -> BoundEstimate:
    """All that follows from what attacks reached; no attack is needed for it.

    Args:
        clean: Features (N, d) and logits (N, K) of the clean images.
        y: Labels (N,).
        weight: Of the linear head (K, d).
        reached: Displacement R (N,) and adversarial loss (N,).
        strongest: For how many examples each attack moved farthest.
        settings: Recorded beside the figures.
    """
    (z, logits), (displacement, loss) = clean, reached
    correct = logits.argmax(dim=1) == y
    margin = margins(logits, weight)
    columns = {
        "clean_loss": cross_entropy(logits.double(), y),
        "adversarial_loss": loss,
        "b1": bound_b1(logits, y, weight, displacement),
        "b2": bound_b2(logits, y, weight, displacement),
        "head_constant": head_constants(weight, y),
        "displacement": displacement,
    }
    means = {name: float(values.mean()) for name, values in columns.items()}
    found = limits(correct, margin, displacement, halfway(z, y))
    counts = {limit: found.count(limit) for limit in Limit}
    failing: list[Limit] = [limit for limit in found if limit is not Limit.NONE]
    largest = max(failing, key=failing.count) if failing else Limit.NONE
    scale = median_distance(z)
    columns["margin"] = margin.clamp(max=torch.finfo(torch.float32).max)
    return BoundEstimate(
        **means,
        relative_displacement=means["displacement"] / scale if scale else 0.0,
        tightness=means["adversarial_loss"] / means["b2"],
        estimated_robust=Proportion.of(counts[Limit.NONE], len(y)),
        limits=counts,
        limited_by=largest,
        strongest=strongest,
        examples={name: values.tolist() for name, values in columns.items()},
        settings=settings,
    )
