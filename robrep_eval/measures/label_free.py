"""How far an attack can carry an encoder's features, without any probe or label.

The measures of Petrov & Kwiatkowska (arXiv 2210.04076), as that paper defines them. Its
public code departs from the definitions in places; here
- quantiles come from the full empirical distribution, not from a table;
- the remaining-distance ratio is relative to the clean images' distance, not to the
  distance after a random start;
- breakaway risk sums over all candidates and divides by n (n - 1) pairs;
- a targeted attack keeps one ball around the clean image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from robrep_eval.attacks.displacement import FeatureAttackSettings, approach, displace
from robrep_eval.measures.base import Finished, Measurement
from robrep_eval.probes.linear import features
from zoo.ball import lengths
from zoo.classifier import Classifier, predict
from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.feature_metric import PLAIN, WHITENED
from zoo.layout import ON_CPU, Layout
from zoo.measurements import LabelFree
from zoo.records import Result
from zoo.threat import ThreatModel
from zoo.whitening import check_units, whitened

FEWEST = 10
"""Images of which the distances say something."""
MAX_IMAGES = 1000
"""Pairwise distances are held in memory: 4 MB at this number."""


@dataclass(frozen=True, kw_only=True)
class WithoutLabels(Measurement[LabelFree]):
    """The measures below; impersonation alone looks at the probe."""

    steps: int = 25
    """Of each attack in feature space."""
    metric: str = PLAIN
    """Units of lengths in feature space: "plain" or "whitened" (more images than
    features)."""

    name: ClassVar[str] = "label_free"
    record: ClassVar[type[LabelFree]] = LabelFree

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self | None:
        """--label-free."""
        return cls(metric=options["feature_metric"]) if options["label_free"] else None

    def check(self, encoder: nn.Module | None, data: Dataset) -> None:
        """Images enough for the measures, and for their units."""
        _check_count(len(data))
        most = min(len(data), MAX_IMAGES) // 2 * 2
        check_units(self.metric, most, encoder)

    def noted(self, finished: Finished) -> dict[str, Any]:
        """Those of the attacks, and their threat model."""
        noted = _noted(self._attack(finished), finished.result.threat)
        return {**noted, "metric": self.metric}

    def _attack(self, finished: Finished) -> FeatureAttackSettings:
        return FeatureAttackSettings(steps=self.steps, seed=finished.result.seed)

    def make(
        self, finished: Finished, on_progress: Callable[[float], None]
    ) -> LabelFree:
        """Of the first `MAX_IMAGES` images."""
        classifier, x = finished.classifier, finished.data.images(slice(MAX_IMAGES))
        if self.metric == WHITENED:
            z = features(classifier.encoder, x[: len(x) // 2 * 2], finished.layout)
            classifier = whitened(classifier, z)
        return measure_label_free(
            classifier.encoder,
            x,
            finished.result.threat,
            settings=self._attack(finished),
            layout=finished.layout,
            classifier=classifier,
            y=finished.y,
        )

    @classmethod
    def told(cls, record: LabelFree, result: Result) -> str:
        """The main ones."""
        units = " (whitened features)" if record.feature_metric == WHITENED else ""
        return (
            f"Without any probe{units}: universal quantile "
            f"{record.universal_quantile:.3f}, remaining distance "
            f"{record.remaining_distance_ratio:.3f}, breakaway "
            f"risk {record.breakaway_risk:.4f}, overlap risk "
            f"{record.overlap_risk:.1%}, margin {record.margin:.3f} on {record.n} "
            "images."
        )


def _noted(settings: FeatureAttackSettings, threat: ThreatModel) -> dict[str, Any]:
    return {**asdict(settings), "threat": str(threat)}


def pair_distances(z: Tensor) -> Tensor:
    """L2 distances of all pairs of different rows, ascending; (N (N - 1) / 2,)."""
    return nn.functional.pdist(z.double()).sort().values


def universal_quantiles(z: Tensor, z_adv: Tensor, pairs: Tensor) -> Tensor:
    """F(||f(x~) - f(x)||) per image: the share of clean pairs at most that far apart.

    0.5 means that the attack moves an image as far as two random images lie apart.

    Args:
        z: Clean features (N, d).
        z_adv: Features of the attacked images (N, d).
        pairs: `pair_distances` of the clean features.
    """
    moved = lengths(z_adv.double() - z.double(), "L2")
    return torch.searchsorted(pairs, moved, right=True).double() / len(pairs)


def remaining_ratios(z: Tensor, z_adv: Tensor, z_target: Tensor) -> Tensor:
    """||f(x~) - f(x_t)|| / ||f(x) - f(x_t)|| per image; 1: the attack gained nothing.

    NaN where clean image and target have the same features.
    """
    left = lengths(z_adv.double() - z_target.double(), "L2")
    return _ratio(left, lengths(z.double() - z_target.double(), "L2"))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """NaN where there is no distance to measure by."""
    return torch.where(whole > 0, part / whole, torch.nan)


def breakaway(z: Tensor, z_adv: Tensor) -> tuple[float, float, float]:
    """Breakaway risk, and how often the own image is among the nearest 1 and 5.

    The risk is the share of pairs (i, j != i) where clean image j is strictly nearer
    to attacked image i than clean image i is.
    """
    distances = torch.cdist(z_adv.double(), z.double())  # (n, n): attacked, clean
    own = distances.diagonal().unsqueeze(1)
    nearer = (distances < own).sum(dim=1)  # j = i is never strictly nearer
    n = len(z)
    return (
        float(nearer.sum()) / (n * (n - 1)),
        float((nearer < 1).double().mean()),
        float((nearer < 5).double().mean()),
    )


def margin_ratios(z: Tensor, z_adv: Tensor, partner: Tensor) -> Tensor:
    """How far two images attacked towards each other stay from passing each other.

    For a pair (x, x'), with x> attacked towards x' and x'> towards x,
    [||f(x) - f(x'>)|| - ||f(x) - f(x>)||] / ||f(x) - f(x')||. Below zero, x' pushed to
    x lies nearer to x than x pushed to x' does: the pair overlaps. NaN where x and x'
    have the same features.

    Args:
        z: Clean features (N, d).
        z_adv: Features of each image attacked towards its partner (N, d).
        partner: Position of each image's partner; partner[partner] is the identity.
    """
    z, z_adv = z.double(), z_adv.double()
    incoming = lengths(z - z_adv[partner], "L2")
    outgoing = lengths(z - z_adv, "L2")
    return _ratio(incoming - outgoing, lengths(z - z[partner], "L2"))


def partners(n: int, generator: torch.Generator) -> Tensor:
    """A random pairing of an even number of images; partner[partner] = identity."""
    order = torch.randperm(n, generator=generator)
    found = torch.empty_like(order)
    found[order[0::2]], found[order[1::2]] = order[1::2], order[0::2]
    return found


def other_class(y: Tensor, generator: torch.Generator) -> Tensor:
    """For each image the position of a random one of another label (N,).

    Raises:
        UserError: all labels are equal.
    """
    differs = (y.unsqueeze(1) != y.unsqueeze(0)).float()
    if bool((differs.sum(dim=1) == 0).any()):
        raise UserError("impersonation needs images of at least two classes")
    return torch.multinomial(differs, 1, generator=generator).squeeze(1)


def measure_label_free(
    encoder: nn.Module,
    x: Tensor,
    threat: ThreatModel,
    *,
    settings: FeatureAttackSettings | None = None,
    classifier: Classifier | None = None,
    y: Tensor | None = None,
    layout: Layout = ON_CPU,
) -> LabelFree:
    """All measures of one encoder on at most `MAX_IMAGES` images.

    Args:
        encoder: Eval mode, frozen.
        x: Clean images (N, C, H, W); an odd one at the end is left out.
        threat: Norm and eps.
        settings: Of the attacks in feature space.
        classifier: A probe on this encoder, for impersonation only.
        y: Labels, for impersonation only.
        layout: Where the encoder lives, and images per forward pass.

    Raises:
        UserError: fewer than 10 images, or all with the same features.
    """
    settings = settings or FeatureAttackSettings(steps=25)
    _check_count(len(x))
    x = x[: min(len(x), MAX_IMAGES) // 2 * 2]
    generator = torch.Generator().manual_seed(settings.seed)

    def embed(images: Tensor) -> Tensor:
        return features(encoder, images, layout)

    z = embed(x)
    partner = partners(len(x), generator)
    if torch.equal(z, z[partner]):
        raise UserError(
            f"{len(x)} images have the features of their partners: this encoder tells "
            "them not apart, and there is no distance to measure by (leave out "
            "--label-free)"
        )
    z_away = embed(displace(encoder, x, threat, settings, layout))
    z_towards = embed(approach(encoder, x, z[partner], threat, settings, layout))
    risk, top1, top5 = breakaway(z, z_away)
    margin = margin_ratios(z, z_towards, partner)
    found: Mapping[str, Any] = {
        "universal_quantile": _median(
            universal_quantiles(z, z_away, pair_distances(z))
        ),
        "remaining_distance_ratio": _median(remaining_ratios(z, z_towards, z[partner])),
        "overlap_risk": float((margin < 0).double().mean()),
        "margin": _median(margin),
    }
    impersonated = None
    if classifier is not None and y is not None:
        impersonated = impersonation(
            classifier, x, y[: len(x)], threat, settings, generator, layout
        )
    return LabelFree(
        **found,
        breakaway_risk=risk,
        nearest_top1=top1,
        nearest_top5=top5,
        impersonation=impersonated,
        n=len(x),
        settings=_noted(settings, threat),
    )


def impersonation(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    settings: FeatureAttackSettings,
    generator: torch.Generator,
    layout: Layout = ON_CPU,
) -> float | None:
    """How often a targeted attack in feature space makes the probe say the target.

    Only images that the probe gets right take part, as source and as target; None if
    they are not of two classes. Labels serve for pairing and scoring alone.
    """
    right = predict(classifier, x, layout).argmax(dim=1) == y
    x, y = x[right], y[right]
    if len(y.unique()) < 2:
        return None
    target = other_class(y, generator)
    z = features(classifier.encoder, x, layout)
    found = approach(
        classifier.encoder, x, z[target], threat, replace(settings, restarts=1), layout
    )
    said = predict(classifier, found, layout).argmax(dim=1)
    return float((said == y[target]).double().mean())


def _check_count(images: int) -> None:
    if images < FEWEST:
        raise UserError(
            f"label-free measures need at least {FEWEST} images, not {images}"
        )


def _median(values: Tensor) -> float:
    """Median of the defined values, halfway between the two middle ones."""
    return float(values[~values.isnan()].double().quantile(0.5))
