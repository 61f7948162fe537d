"""The estimated bound as a measurement; `zoo.bound` says what it is and computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from robrep_eval.attacks.displacement import FeatureAttackSettings, displace
from robrep_eval.attacks.pgd import ascend_each
from robrep_eval.measures.base import Finished, Measurement
from zoo.affordable import BOUND_IMAGES, affordable
from zoo.bound import estimate_bound, features_and_logits
from zoo.datasets.base import Dataset
from zoo.feature_metric import PLAIN, WHITENED
from zoo.margins import cross_entropy
from zoo.measurements import BoundEstimate, Limit
from zoo.records import Result
from zoo.settings import LAYOUT, differing, plain
from zoo.whitening import check_units, whitened

ENOUGH = 4
"""Images for each feature that is whitened. Of d + 1 images in general position all
distances come out equal, whatever the encoder is."""


@dataclass(frozen=True, kw_only=True)
class EstimatedBound(Measurement[BoundEstimate]):
    """The bound with R over displacement, cross-entropy and every counted adversarial.

    In units of `zoo.whitening` no invertible linear map of the features changes it;
    there must be more images than features then.

    Ready-made classifiers have no linear head, and go without it.
    """

    images: int = BOUND_IMAGES
    """The first ones; of the default number fewer where the battery was short, and
    for whitened units at least `ENOUGH` times as many as features, where the
    images suffice."""
    restarts: int = 2
    """Of the displacement attack."""
    steps: int = 50
    """Of the cross-entropy attack."""
    relative_step: float = 0.1
    """Of the same, as a share of eps."""
    metric: str = PLAIN
    """Units of lengths in feature space: "plain" or "whitened"."""

    name: ClassVar[str] = "bound"
    record: ClassVar[type[BoundEstimate]] = BoundEstimate

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self | None:
        """Unless --no-bound."""
        return cls(metric=options["feature_metric"]) if options["bound"] else None

    def check(self, encoder: nn.Module | None, data: Dataset) -> None:
        """Units that there are, and images enough for them."""
        most = len(data) if self.images == BOUND_IMAGES else self.images
        check_units(self.metric, min(len(data), most), encoder)

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
            "images": self._count(finished),
            "metric": self.metric,
        }

    def _count(self, finished: Finished) -> int:
        """The first so many images."""
        if self.images == BOUND_IMAGES:
            most = affordable(finished.result, finished.data.shape).bound
            head = finished.classifier.linear
            if self.metric == WHITENED and head is not None:
                most = max(most, ENOUGH * head.in_features)
        else:
            most = self.images
        return min(len(finished.data), most)

    def has(self, record: BoundEstimate, finished: Finished) -> bool:
        """One on more images of the default number is as good."""
        wanted = plain(self.noted(finished))
        said = self.said(record, finished)
        if self.images == BOUND_IMAGES and said["images"] > wanted["images"]:
            wanted["images"] = said["images"]
        return not differing(said, wanted, without=LAYOUT)

    def _displacement(self, finished: Finished) -> FeatureAttackSettings:
        return FeatureAttackSettings(restarts=self.restarts, seed=finished.result.seed)

    def make(
        self, finished: Finished, on_progress: Callable[[float], None]
    ) -> BoundEstimate:
        """The largest displacement and loss over all those images."""
        n = self._count(finished)
        x, y = finished.data.images(slice(n)), finished.y[:n]
        classifier = finished.classifier
        if self.metric == WHITENED:
            z, _ = features_and_logits(classifier, x, finished.layout)
            classifier = whitened(classifier, z)
        candidates = {
            "(displacement)": displace(
                classifier.encoder,
                x,
                finished.result.threat,
                self._displacement(finished),
                finished.layout,
            ),
            "(cross-entropy)": self._cross_entropy(finished, x, y),
            **_by_attack(finished, x),
        }
        return estimate_bound(classifier, x, y, candidates, layout=finished.layout)

    def _cross_entropy(self, finished: Finished, x: Tensor, y: Tensor) -> Tensor:
        def loss(images: Tensor, labels: Tensor) -> Tensor:
            logits = finished.classifier(images)
            return cross_entropy(logits, labels)

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
            layout=finished.layout,
        )

    @classmethod
    def told(cls, record: BoundEstimate, result: Result) -> str:
        """How tight it is, and what keeps examples from passing the margin test."""
        limited = (
            "every image passes the margin test"
            if record.limited_by is Limit.NONE
            else f"limited by the {record.limited_by.value}"
        )
        units = "whitened " if record.feature_metric == WHITENED else ""
        return (
            f"Bound (estimate): adversarial loss {record.adversarial_loss:.3f} <= "
            f"{record.b2:.3f} (B2) <= {record.b1:.3f} (B1); displacement "
            f"{record.relative_displacement:.2f} of the median distance between "
            f"{units}features; margin test {record.estimated_robust}; {limited}."
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
