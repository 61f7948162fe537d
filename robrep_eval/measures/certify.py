"""Randomised smoothing: certified L2 radii for any classifier, by sampling.

The smoothed classifier answers the class that the base classifier gives most often
when Gaussian noise is added to the image. It is ANOTHER classifier than its base: its
certificates say nothing about the base and are reported beside, never inside, the
base's figures. Source: Cohen, Rosenfeld & Kolter 2019, arXiv 1902.02918.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from robrep_eval.measures.base import Finished, Measurement
from robrep_eval.probes.linear import ProbeSettings, features
from robrep_eval.probes.logistic import fit_linear
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.layout import ON_CPU, Layout
from zoo.measurements import Radii, SmoothingCertificate
from zoo.records import Proportion, Result

ABSTAINED = -1
DEFAULT_L2 = 1e-3
"""Penalty of a noisy probe where the clean probe had none."""
BLOCK = 64
"""Examples whose samples are drawn together; part of the random stream's order."""


@dataclass(frozen=True, kw_only=True)
class SmoothingSettings:
    """How the smoothed classifier is sampled."""

    sigma: float = 0.25
    """Deviation of the noise, in pixels of [0, 1]."""
    n0: int = 100
    """Samples that choose the class."""
    n: int = 10_000
    """Further samples that bound its probability."""
    alpha: float = 0.001
    """Chance that a certificate is wrong, per example."""
    batch_size: int = 2048
    """Noisy images per forward pass; several examples share one."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf:
            raise UserError(
                f"the noise of smoothing (--sigma) must be positive, not {self.sigma:g}"
            )
        if min(self.n0, self.n, self.batch_size) < 1:
            raise UserError(
                f"smoothing needs at least one sample (--samples), not {self.n0} to "
                f"choose a class and {self.n} to bound its probability"
            )
        if not 0 < self.alpha < 1:
            raise UserError(f"alpha must lie in (0, 1), not {self.alpha:g}")


@dataclass(frozen=True, kw_only=True)
class Smoothing(Measurement[SmoothingCertificate]):
    """Certificates of the smoothed classifier."""

    sampling: SmoothingSettings = field(default_factory=SmoothingSettings)
    images: int = 500
    """To certify, evenly spaced."""

    name: ClassVar[str] = "smoothing"
    record: ClassVar[type[SmoothingCertificate]] = SmoothingCertificate

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self:
        """--sigma and --samples."""
        sampling = SmoothingSettings(
            sigma=options["sigma"], n=options["samples"], seed=options["seed"]
        )
        return cls(sampling=sampling)

    def noted(self, finished: Finished) -> dict[str, Any]:
        """The number of images is that of those there are."""
        count = min(len(finished.data), self.images)
        return {**asdict(self.sampling), "images": count}

    def said(self, record: SmoothingCertificate, finished: Finished) -> dict[str, Any]:
        """All but the seed stand in the record itself."""
        names = ("sigma", "n0", "n", "alpha")
        own = {name: getattr(record, name) for name in names}
        return {**super().said(record, finished), **own, "images": len(record.index)}

    def make(
        self, finished: Finished, on_progress: Callable[[float], None]
    ) -> SmoothingCertificate:
        """The head is fitted on noisy features, unless the classifier came whole."""
        settings, record = self.sampling, finished.result.probe
        base, probe = finished.classifier, "the classifier's own head"
        if record is not None:
            base = noisy_probe(
                base.encoder,
                finished.train(),
                shape=base.shape,
                settings=settings,
                l2=float(record.parameters.get("l2", DEFAULT_L2)),
                layout=finished.layout,
            )
            probe = "fitted on features of noisy images"
        count = min(len(finished.data), self.images)
        rows = torch.linspace(0, len(finished.data) - 1, count).round().long()
        threat = finished.result.threat
        return certify_smoothing(
            base,
            finished.data.images(rows),
            finished.y[rows],
            settings=settings,
            eps=threat.eps if threat.norm == "L2" else settings.sigma,
            probe=probe,
            index=finished.data.positions[rows.numpy()].tolist(),
            device=finished.layout.device,
            on_progress=on_progress,
        )

    @classmethod
    def told(cls, record: SmoothingCertificate, result: Result) -> str:
        """Says that it is about another classifier."""
        return (
            f"Smoothed with sigma {record.sigma:g} (another classifier, not this "
            f"one): {record.smoothed} correct, {record.abstained} of "
            f"{len(record.index)} abstained, average certified L2 radius "
            f"{record.average_radius:.3f} ({record.n:,} samples an image)."
        )


def lower_bound(k: int, n: int, alpha: float) -> float:
    """One-sided Clopper-Pearson bound: the share is above it, but for chance alpha."""
    from scipy.stats import beta

    return float(beta.ppf(alpha, k, n - k + 1)) if k else 0.0


def radius_of(top: int, n: int, settings: SmoothingSettings) -> float:
    """sigma * Phi^-1(lower bound), or 0 (abstain) unless the bound exceeds one half."""
    from scipy.stats import norm

    low = lower_bound(top, n, settings.alpha)
    return settings.sigma * float(norm.ppf(low)) if low > 0.5 else 0.0


def noisy_votes(
    classifier: nn.Module,
    x: Tensor,
    count: int,
    classes: int,
    settings: SmoothingSettings,
    generator: torch.Generator,
    device: str,
) -> Tensor:
    """How often each class wins under noise: (N, classes), rows sum to `count`.

    Noisy images are clipped to [0, 1], which is part of the base classifier. Samples
    of different examples share batches, so that a pass is never nearly empty.

    Args:
        classifier: Base classifier, eval mode.
        x: Clean images (N, C, H, W).
        count: Samples per image.
        classes: Number of classes.
        settings: Noise and batch size.
        generator: CPU source of the noise.
        device: Where the classifier lives.
    """
    votes = torch.zeros(len(x), classes, dtype=torch.int64)
    total = len(x) * count
    with torch.inference_mode():
        for start in range(0, total, settings.batch_size):
            sample = torch.arange(start, min(start + settings.batch_size, total))
            rows = sample // count
            noise = torch.randn((len(rows), *x.shape[1:]), generator=generator)
            noisy = (x[rows] + settings.sigma * noise).clamp(0, 1)
            won = classifier(noisy.to(device)).argmax(dim=1).cpu()
            votes.index_put_((rows, won), torch.ones_like(won), accumulate=True)
    return votes


def certify_smoothing(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    settings: SmoothingSettings,
    eps: float,
    probe: str,
    index: list[int] | None = None,
    device: str = "cpu",
    on_progress: Callable[[float], None] = lambda _: None,
) -> SmoothingCertificate:
    """Certifies each example; abstentions are counted apart.

    Args:
        classifier: The base; a head fitted on noisy features does far better
            (`noisy_probe`).
        x: Clean images (N, C, H, W).
        y: Labels (N,).
        settings: Sampling.
        eps: Radii from 0 to twice this are tabulated.
        probe: Description of the head, for the record.
        index: Positions of the examples, for the record; by default 0 to N - 1.
        device: Where the classifier lives.
        on_progress: Called with the share of examples done.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    predictions, radii = [], []
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        chosen, votes = (
            noisy_votes(
                classifier,
                block,
                count,
                classifier.classes,
                settings,
                generator,
                device,
            )
            for count in (settings.n0, settings.n)
        )
        guess = chosen.argmax(dim=1)
        counts = votes.gather(1, guess.unsqueeze(1)).squeeze(1)
        for label, top in zip(guess.tolist(), counts.tolist(), strict=True):
            radii.append(radius_of(top, settings.n, settings))
            predictions.append(label if radii[-1] > 0 else ABSTAINED)
        on_progress(min(1.0, (start + BLOCK) / len(x)))
    right = [p == t for p, t in zip(predictions, y.tolist(), strict=True)]
    earned = [r if ok else 0.0 for r, ok in zip(radii, right, strict=True)]
    return SmoothingCertificate(
        sigma=settings.sigma,
        n0=settings.n0,
        n=settings.n,
        alpha=settings.alpha,
        probe=probe,
        smoothed=Proportion.of(sum(right), len(x)),
        abstained=predictions.count(ABSTAINED),
        curve=_curve(earned, right, eps, settings.sigma),
        average_radius=sum(earned) / len(x),
        index=index or list(range(len(x))),
        prediction=predictions,
        radius=radii,
    )


def _curve(earned: list[float], right: list[bool], eps: float, sigma: float) -> Radii:
    """Certified accuracy from radius 0 to the larger of 2 eps and 4 sigma."""
    grid = [max(2 * eps, 4 * sigma) * step / 20 for step in range(21)]
    counts = [
        sum(ok and r > radius for r, ok in zip(earned, right, strict=True))
        for radius in grid
    ]
    return Radii(radius=grid, certified=[Proportion.of(k, len(earned)) for k in counts])


def noisy_probe(
    encoder: nn.Module,
    train: Dataset,
    *,
    shape: tuple[int, int, int],
    settings: SmoothingSettings,
    l2: float,
    copies: int = 4,
    probe: ProbeSettings | None = None,
    layout: Layout = ON_CPU,
) -> Classifier:
    """A linear head fitted on features of noisy training images.

    Args:
        encoder: Frozen.
        train: Training split.
        shape: (C, H, W).
        settings: Noise; the draws differ from those of the certificate.
        l2: Penalty of the clean probe.
        copies: Noisy versions of each training image.
        probe: Solver settings.
        layout: Where the encoder lives, and images per forward pass.
    """
    solver = probe or ProbeSettings()
    generator = torch.Generator().manual_seed(settings.seed + 2**20)
    parts = []
    for _ in range(copies):
        for start in range(0, len(train), layout.batch_size):
            x = train.images(slice(start, start + layout.batch_size))
            noise = torch.randn(x.shape, generator=generator)
            noisy = (x + settings.sigma * noise).clamp(0, 1)
            parts.append(features(encoder, noisy, layout))
    head = fit_linear(
        torch.cat(parts),
        train.labels.repeat(copies),
        classes=len(train.classes),
        l2=l2,
        tolerance=solver.tolerance,
        max_iterations=solver.max_iterations,
    )
    return Classifier(encoder, head, classes=len(train.classes), shape=shape).to(
        layout.device
    )
