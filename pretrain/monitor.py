"""A quick look at an encoder while it trains, on held-out images.

Linear probe and PGD; or, of a run that starts from an encoder, its features beside
those, without labels; or, without both, attacked features beside clean ones. It ranks
epochs of one run and nothing else; figures come from `robrep-eval`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.data import Split
from pretrain.losses import squared_lengths
from pretrain.randomness import generator
from pretrain.recipe import Recipe
from robrep_eval.attacks.displacement import FeatureAttackSettings, displace
from robrep_eval.attacks.pgd import Objective, ascend
from robrep_eval.measures.label_free import pair_distances, universal_quantiles
from robrep_eval.probes.linear import features
from robrep_eval.probes.logistic import fit_linear
from zoo.classifier import Classifier, predict
from zoo.encoder import Encoder
from zoo.layout import Layout

PENALTY = 1e-3
"""L2 penalty of the quick probe."""
PAIRED = 256
"""Most images of a look without labels."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Accuracies in [0, 1] on held-out training images."""

    clean: float
    robust: float | None
    """Under PGD; None without a threat model."""

    @property
    def score(self) -> float:
        """What "best" means: robust accuracy, or clean where there is none."""
        return self.clean if self.robust is None else self.robust

    def figures(self) -> dict[str, float | None]:
        """For the log, by name."""
        return {"clean": self.clean, "robust": self.robust}

    def __str__(self) -> str:
        robust = "" if self.robust is None else f", PGD {100 * self.robust:.1f}%"
        return f"probe {100 * self.clean:.1f}%{robust}"


@dataclass(frozen=True, kw_only=True)
class FeatureLook:
    """Means over held-out training images, of which no label is used.

    Squared distances from the original encoder's clean features, as shares of the
    squared length of those.
    """

    drift: float | None
    """Of clean features; None without an original, or where the two encoders' features
    cannot be compared."""
    attacked: float | None
    """Of attacked ones; the same."""
    quantile: float | None
    """Universal quantile (arXiv 2210.04076): share of pairs of different images that
    lie nearer to each other than an image to itself attacked; None of one image."""

    @property
    def score(self) -> float:
        """What "best" means: attacked features nearest to where they were."""
        known = [v for v in (self.attacked, self.quantile) if v is not None]
        return -known[0] if known else 0.0

    def figures(self) -> dict[str, float | None]:
        """For the log, by name."""
        return asdict(self)

    def __str__(self) -> str:
        shown = {**self.figures(), "universal quantile": self.quantile}
        del shown["quantile"]
        known = [f"{k} {v:.3f}" for k, v in shown.items() if v is not None]
        return ", ".join(known)


def farther(
    before: Look | FeatureLook | None, after: Look | FeatureLook | None
) -> str | None:
    """A warning if attacked features ended farther from the original's than before."""
    if not (isinstance(before, FeatureLook) and isinstance(after, FeatureLook)):
        return None
    if before.attacked is None or not (after.attacked or 0) > 1.01 * before.attacked:
        return None
    return (
        f"warning: attacked features ended farther from the original's than they were, "
        f"{after.attacked:.3f} against {before.attacked:.3f}: this encoder is no more "
        "robust. Try a lower -o optimizer.lr, -o norms=frozen where batches are small, "
        "or more images"
    )


def look(encoder: Encoder, parts: Split, recipe: Recipe, device: torch.device) -> Look:
    """Fits a probe on training images and attacks it on held-out ones."""
    settings = recipe.monitor
    fit, held = parts.train.take(settings.fit), parts.held_out.take(settings.limit)
    z = features(encoder, fit, Layout(device=str(device))).to(device)
    classes = len(fit.classes)
    head = fit_linear(
        z, fit.labels, classes=classes, l2=PENALTY, tolerance=1e-4, max_iterations=200
    )
    classifier = Classifier(encoder, head, classes=classes, shape=encoder.spec.shape)
    classifier.to(device)
    correct = attacked = 0
    for start in range(0, len(held), 256):
        block = slice(start, start + 256)
        x, y = held.images(block).to(device), held.labels[block].to(device)
        correct += _right(classifier, x, y)
        if recipe.threat is not None:
            adversarial = ascend(
                _cross_entropy(classifier, y),
                x,
                recipe.threat,
                steps=settings.steps,
                step_size=recipe.threat.eps / 4,
                generator=generator(recipe.seed, "monitor", start),
            )
            attacked += _right(classifier, adversarial, y)
    return Look(
        clean=correct / len(held),
        robust=attacked / len(held) if recipe.threat is not None else None,
    )


def feature_look(
    base: Encoder | None,
    encoder: Encoder,
    match: nn.Module,
    parts: Split,
    recipe: Recipe,
) -> FeatureLook:
    """Attacks held-out images away from their own features: no probe, no labels.

    Args:
        base: The original encoder, in eval mode, on the device; None where there is
            none, and the universal quantile alone is known.
        encoder: As it would be published now, in eval mode, on the device.
        match: Brings its features to the width of the base's.
        parts: For the held-out images, at most `PAIRED`.
        recipe: With a threat model.
    """
    settings, threat = recipe.monitor, recipe.threat
    assert threat is not None, "the caller asks"
    layout = Layout(device=str(next(encoder.parameters()).device), batch_size=64)
    x = parts.held_out.take(min(settings.limit, PAIRED)).images(slice(None))
    attack = FeatureAttackSettings(steps=settings.steps, seed=recipe.seed)
    encoder.requires_grad_(False)
    found = displace(encoder, x, threat, attack, layout)
    z, z_adv = features(encoder, x, layout), features(encoder, found, layout)
    quantile = None
    if len(x) > 1:
        quantile = float(universal_quantiles(z, z_adv, pair_distances(z)).mean())
    if base is None:
        return FeatureLook(drift=None, attacked=None, quantile=quantile)
    anchor = features(base, x, layout)
    with torch.no_grad():
        z, z_adv = (match(v.to(layout.device)).cpu() for v in (z, z_adv))
    if z.shape[1] != anchor.shape[1]:
        return FeatureLook(drift=None, attacked=None, quantile=quantile)
    length = squared_lengths(anchor).mean()
    return FeatureLook(
        drift=float(squared_lengths(z - anchor).mean() / length),
        attacked=float(squared_lengths(z_adv - anchor).mean() / length),
        quantile=quantile,
    )


def _right(classifier: Classifier, x: Tensor, y: Tensor) -> int:
    logits = predict(classifier, x, Layout(device=str(x.device)))
    return int((logits.argmax(dim=1) == y.cpu()).sum())


def _cross_entropy(classifier: Classifier, y: Tensor) -> Objective:
    return lambda x: F.cross_entropy(classifier(x), y, reduction="none")
