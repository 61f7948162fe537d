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
this file is a certificate. `robrep_eval.measures.lipschitz` proves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from robrep_eval.attacks.displacement import FeatureAttackSettings, displace
from robrep_eval.attacks.pgd import ascend_each
from robrep_eval.measures.base import Finished, Measurement
from robrep_eval.measures.linear_head import (
    features_and_logits,
    head_constants,
    head_distances,
    linear_head,
    margins,
)
from zoo.classifier import Classifier
from zoo.measurements import BoundEstimate, Limit
from zoo.records import Proportion, Result

MAX_PAIRS = 2000
"""Examples among which pairwise distances are taken."""


@dataclass(frozen=True, kw_only=True)
class EstimatedBound(Measurement[BoundEstimate]):
    """The bound with R over displacement, cross-entropy and every counted adversarial.

    Ready-made classifiers have no linear head, and go without it.
    """

    images: int = 2000
    """The first ones."""
    restarts: int = 2
    """Of the displacement attack."""
    steps: int = 50
    """Of the cross-entropy attack."""
    relative_step: float = 0.1
    """Of the same, as a share of eps."""

    name: ClassVar[str] = "bound"
    record: ClassVar[type[BoundEstimate]] = BoundEstimate

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self:
        """Always."""
        return cls()

    def applies(self, finished: Finished) -> bool:
        """With a linear head only."""
        return finished.classifier.linear is not None

    def noted(self, finished: Finished) -> dict[str, Any]:
        """By attack."""
        return {
            "displacement": asdict(self._displacement(finished)),
            "cross_entropy": {
                "steps": self.steps,
                "relative_step": self.relative_step,
            },
            "images": min(len(finished.data), self.images),
        }

    def _displacement(self, finished: Finished) -> FeatureAttackSettings:
        return FeatureAttackSettings(
            restarts=self.restarts, seed=finished.result.seed, **finished.sizes
        )

    def make(
        self, finished: Finished, on_progress: Callable[[float], None]
    ) -> BoundEstimate:
        """The largest displacement and loss over all those images."""
        n = min(len(finished.data), self.images)
        x, y = finished.data.images(slice(n)), finished.y[:n]
        candidates = {
            "(displacement)": displace(
                finished.classifier.encoder,
                x,
                finished.result.threat,
                self._displacement(finished),
            ),
            "(cross-entropy)": self._cross_entropy(finished, x, y),
            **_by_attack(finished, x),
        }
        return estimate_bound(finished.classifier, x, y, candidates, **finished.sizes)

    def _cross_entropy(self, finished: Finished, x: Tensor, y: Tensor) -> Tensor:
        def loss(images: Tensor, labels: Tensor) -> Tensor:
            logits = finished.classifier(images)
            return nn.functional.cross_entropy(logits, labels, reduction="none")

        threat = finished.result.threat
        return ascend_each(
            loss,
            x,
            y,
            threat,
            steps=self.steps,
            step_size=self.relative_step * threat.eps,
            generator=torch.Generator().manual_seed(finished.result.seed),
            keep_best=True,
            **finished.sizes,
        )

    @classmethod
    def told(cls, record: BoundEstimate, result: Result) -> str:
        """How tight it is, and what keeps examples from passing the margin test."""
        limited = (
            "every image passes the margin test"
            if record.limited_by is Limit.NONE
            else f"limited by the {record.limited_by.value}"
        )
        return (
            f"Bound (estimate): adversarial loss {record.adversarial_loss:.3f} <= "
            f"{record.b2:.3f} (B2) <= {record.b1:.3f} (B1); displacement "
            f"{record.relative_displacement:.2f} of the median distance between "
            f"features; margin test {record.estimated_robust}; {limited}."
        )


def _by_attack(finished: Finished, x: Tensor) -> dict[str, Tensor]:
    """What each attack of the battery found; clean images where it failed."""
    claims, candidates = finished.claims(), {}
    for at, run in enumerate(finished.result.attacks):
        own = (claims.attack_index == at) & (claims.positions < len(x))
        if bool(own.any()):
            candidates[run.name] = x.clone()
            candidates[run.name][claims.positions[own]] = claims.images[own]
    return candidates


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Per example, nats, float64 (N,)."""
    return nn.functional.cross_entropy(logits.double(), y, reduction="none")


def bound_b1(logits: Tensor, y: Tensor, weight: Tensor, displacement: Tensor) -> Tensor:
    """(B1) for each example, float64 (N,).

    Args:
        logits: At the clean images (N, K).
        y: Labels (N,).
        weight: Of the linear head (K, d).
        displacement: R(x), L2 in feature space (N,).
    """
    reach = head_constants(weight, y) * displacement.double()
    return cross_entropy(logits, y) + reach


def bound_b2(logits: Tensor, y: Tensor, weight: Tensor, displacement: Tensor) -> Tensor:
    """(B2) for each example, float64 (N,); arguments as for `bound_b1`."""
    s = logits.double()
    rise = head_distances(weight)[y] * displacement.double().unsqueeze(1)  # (N, K)
    # The diagonal of the distances is zero, so column y is s_y - s_y + 0 = 0: the 1.
    return (s - s.gather(1, y.unsqueeze(1)) + rise).logsumexp(dim=1)


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
    *,
    batch_size: int = 256,
    device: str = "cpu",
) -> Reached:
    """Displacement and loss, both the maximum over all candidates.

    A weak displacement attack alone would let the adversarial loss of a stronger
    attack exceed the estimated bound; over the same set of images it cannot.

    Args:
        classifier: With a linear head.
        x: Clean images (N, C, H, W).
        y: Labels (N,).
        candidates: Images like `x` by attack name, all inside the threat model.
        batch_size: Images per forward pass.
        device: Where the classifier lives.
    """
    z, logits = features_and_logits(classifier, x, batch_size, device)
    loss = cross_entropy(logits, y)
    moved = [loss.new_zeros(len(x))]
    for images in candidates.values():
        z_adv, logits_adv = features_and_logits(classifier, images, batch_size, device)
        moved.append((z_adv - z).square().sum(dim=1).sqrt())
        loss = torch.maximum(loss, cross_entropy(logits_adv, y))
    displacement, by = torch.stack(moved).max(dim=0)
    return Reached(displacement, loss, by - 1)


def estimate_bound(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    candidates: Mapping[str, Tensor],
    *,
    batch_size: int = 256,
    device: str = "cpu",
) -> BoundEstimate:
    """All of the above for one classifier, per example and on average.

    Args:
        classifier: With a linear head.
        x: Clean images (N, C, H, W) in [0, 1].
        y: Labels (N,).
        candidates: Perturbed images like `x` by attack name; those of the displacement
            attack and of every other attack at hand.
        batch_size: Images per forward pass.
        device: Where the classifier lives.

    Raises:
        UserError: the classifier has no linear head.
    """
    weight = linear_head(classifier).weight.detach().cpu()
    z, logits = features_and_logits(classifier, x, batch_size, device)
    reached = reach(classifier, x, y, candidates, batch_size=batch_size, device=device)
    correct = logits.argmax(dim=1) == y
    margin = margins(logits, weight)
    columns = {
        "clean_loss": cross_entropy(logits, y),
        "adversarial_loss": reached.loss,
        "b1": bound_b1(logits, y, weight, reached.displacement),
        "b2": bound_b2(logits, y, weight, reached.displacement),
        "head_constant": head_constants(weight, y),
        "displacement": reached.displacement,
    }
    means = {name: float(values.mean()) for name, values in columns.items()}
    found = limits(correct, margin, reached.displacement, halfway(z, y))
    counts = {limit: found.count(limit) for limit in Limit}
    failing: list[Limit] = [limit for limit in found if limit is not Limit.NONE]
    largest = max(failing, key=failing.count) if failing else Limit.NONE
    scale = median_distance(z)
    columns["margin"] = margin.clamp(max=torch.finfo(torch.float32).max)
    names = list(candidates)
    return BoundEstimate(
        **means,
        relative_displacement=means["displacement"] / scale if scale else 0.0,
        tightness=means["adversarial_loss"] / means["b2"],
        estimated_robust=Proportion.of(counts[Limit.NONE], len(y)),
        limits=counts,
        limited_by=largest,
        strongest={
            name: int((reached.by == at).sum()) for at, name in enumerate(names)
        },
        examples={name: values.tolist() for name, values in columns.items()},
    )
