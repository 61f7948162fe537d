"""Further measurements of a finished evaluation, each on request and kept once made.

They read a result, its classifier and its adversarials, so a finished run can be
measured further without attacking again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robrep_eval.attacks.displacement import FeatureAttackSettings, displace
from robrep_eval.attacks.pgd import ascend_each
from robrep_eval.measures.certify import SmoothingSettings
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.errors import UserError, nearest
from zoo.measurements import (
    BoundEstimate,
    Corruptions,
    EpsCurve,
    HealthReport,
    LabelFree,
    LipschitzCertificate,
    SmoothingCertificate,
)
from zoo.records import Record, Result

CERTIFICATES = ("smoothing", "lipschitz")
HEALTH = ("none", "default", "full")
BOUND_IMAGES = 2000
"""First images on which the bound is estimated."""
CE_STEPS = 50
CE_STEP = 0.1
"""Of the cross-entropy attack behind the bound, as a share of eps."""
DEFAULT_L2 = 1e-3
"""Penalty of a noisy probe where the clean probe had none."""


@dataclass(frozen=True, kw_only=True)
class MeasureSettings:
    """What to measure beside the attacks."""

    health: Literal["none", "default", "full"] = "default"
    bound: bool = True
    """Skipped without a word for ready-made classifiers, which have no probe."""
    label_free: bool = False
    certify: tuple[str, ...] = ()
    """Of `CERTIFICATES`."""
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    smoothing_limit: int = 500
    """Images to certify by sampling, evenly spaced."""
    corruptions: str | None = None
    """"generated", or the folder of the official arrays."""

    def __post_init__(self) -> None:
        if self.health not in HEALTH:
            raise UserError(
                f"unknown level '{self.health}' of health checks; "
                f"{nearest(self.health, HEALTH)}"
            )
        for name in self.certify:
            if name not in CERTIFICATES:
                raise UserError(
                    f"unknown certificate '{name}'; {nearest(name, CERTIFICATES)}"
                )

    def wanted(self, *, probed: bool) -> list[str]:
        """Names of the measurements, as fields of `Measurements`."""
        found = {
            "health": self.health != "none",
            "eps_curve": self.health != "none",
            "bound": self.bound and probed,
            "label_free": self.label_free,
            "corruptions": self.corruptions is not None,
            "smoothing": "smoothing" in self.certify,
            "lipschitz": "lipschitz" in self.certify,
        }
        return [name for name, asked in found.items() if asked]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An evaluation as it was found."""

    result: Result
    classifier: Classifier
    data: Dataset
    positions: Tensor
    """Row of each counted adversarial in the examples (k,)."""
    attack_index: Tensor
    """Which attack of the result found it (k,)."""
    images: Tensor
    """Those adversarials (k, C, H, W)."""
    train: Callable[[], Dataset]
    """Reads the training split, for probes on noisy features."""
    batch_size: int = 256
    device: str = "cpu"


def missing(settings: MeasureSettings, result: Result, *, probed: bool) -> list[str]:
    """Measurements asked for that the result does not hold yet."""
    known = result.measurements
    lacking = [
        name for name in settings.wanted(probed=probed) if getattr(known, name) is None
    ]
    proof, wanted = known.smoothing, settings.smoothing
    if (
        "smoothing" in settings.certify
        and proof is not None
        and (proof.sigma, proof.n) != (wanted.sigma, wanted.n)
    ):
        lacking.append("smoothing")
    report = known.health
    if settings.health == "full" and report is not None and report.level != "full":
        lacking.append("health")
    return lacking


def check(settings: MeasureSettings, encoder: nn.Module | None, data: Dataset) -> None:
    """Raises `UserError` for what is bound to fail, before any work begins.

    Args:
        settings: What is asked for.
        encoder: To be probed, or None for a ready-made classifier.
        data: Images to be evaluated.
    """
    if "lipschitz" in settings.certify:
        from robrep_eval.measures.lipschitz import lipschitz_constant

        lipschitz_constant(encoder or nn.Identity())
    if settings.corruptions is not None:
        from robrep_eval.measures.corruptions import check_source

        check_source(data, settings.corruptions)


def measure(
    finished: Finished,
    settings: MeasureSettings,
    *,
    on_stage: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Result:
    """The result with everything that was asked for and still missing.

    Args:
        finished: What is measured further.
        settings: What to measure.
        on_stage: Called with one line before each measurement.
        on_progress: Called with the share of a long measurement that is done.

    Raises:
        UserError: a measurement that this model, dataset or threat model cannot have.
    """
    probed = finished.classifier.linear is not None
    found: dict[str, Record] = {}
    maker = _Maker(finished, settings, on_progress)
    for name in missing(settings, finished.result, probed=probed):
        on_stage(f"measuring: {name.replace('_', ' ')}")
        found[name] = getattr(maker, name)()
    measured = finished.result.measurements.model_copy(update=found)
    return finished.result.model_copy(update={"measurements": measured})


class _Maker:
    """One method for each field of `Measurements`."""

    def __init__(
        self,
        finished: Finished,
        settings: MeasureSettings,
        on_progress: Callable[[float], None],
    ) -> None:
        self.finished, self.settings = finished, settings
        self.on_progress = on_progress
        self.threat = finished.result.threat
        self.seed = finished.result.seed
        self.classifier = finished.classifier
        self.sizes: dict[str, Any] = {
            "batch_size": finished.batch_size,
            "device": finished.device,
        }
        self._x: Tensor | None = None
        self._subject: Any = None

    @property
    def x(self) -> Tensor:
        """All evaluated images, read once."""
        if self._x is None:
            self._x = self.finished.data.images(slice(None))
        return self._x

    @property
    def y(self) -> Tensor:
        return self.finished.data.labels

    def bound(self) -> BoundEstimate:
        """R over displacement, cross-entropy and every counted adversarial."""
        from robrep_eval.measures.bound import estimate_bound

        feature = FeatureAttackSettings(restarts=2, seed=self.seed, **self.sizes)
        n = min(len(self.y), BOUND_IMAGES)
        x, y = self.finished.data.images(slice(n)), self.y[:n]
        return estimate_bound(
            self.classifier,
            x,
            y,
            {
                "(displacement)": displace(
                    self.classifier.encoder, x, self.threat, feature
                ),
                "(cross-entropy)": self._cross_entropy(x, y),
                **self._by_attack(x),
            },
            settings={
                "displacement": asdict(feature),
                "cross_entropy": {"steps": CE_STEPS, "relative_step": CE_STEP},
            },
            **self.sizes,
        )

    def _by_attack(self, x: Tensor) -> dict[str, Tensor]:
        """What each attack of the battery found; clean images where it failed."""
        found, candidates = self.finished, {}
        for at, run in enumerate(found.result.attacks):
            own = (found.attack_index == at) & (found.positions < len(x))
            if bool(own.any()):
                candidates[run.name] = x.clone()
                candidates[run.name][found.positions[own]] = found.images[own]
        return candidates

    def _cross_entropy(self, x: Tensor, y: Tensor) -> Tensor:
        def loss(images: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(self.classifier(images), labels, reduction="none")

        return ascend_each(
            loss,
            x,
            y,
            self.threat,
            steps=CE_STEPS,
            step_size=CE_STEP * self.threat.eps,
            generator=torch.Generator().manual_seed(self.seed),
            keep_best=True,
            **self.sizes,
        )

    def _health_subject(self) -> Any:
        from robrep_eval.measures.health import MAX_IMAGES, Subject

        if self._subject is None:
            found = self.finished
            some = found.data.take(MAX_IMAGES)  # of all classes, sorted or not
            self._subject = Subject(
                classifier=self.classifier,
                x=some.images(slice(None)),
                y=some.labels,
                ids=some.positions.tolist(),
                threat=self.threat,
                seed=self.seed,
                examples=found.result.examples,
                whole=found.data,
                adversarials=found.images,
                origins=found.data.images(found.positions),
                **self.sizes,
            )
        return self._subject

    def health(self) -> HealthReport:
        from robrep_eval.measures.health import Level, check_health

        level: Level = "full" if self.settings.health == "full" else "default"
        return check_health(self._health_subject(), level, self.on_progress)

    def eps_curve(self) -> EpsCurve:
        """From the health checks, which attack at several radii anyway."""
        from robrep_eval.measures.health.attack import eps_curve

        return eps_curve(self._health_subject())

    def label_free(self) -> LabelFree:
        from robrep_eval.measures.label_free import measure_label_free

        return measure_label_free(
            self.classifier.encoder,
            self.x,
            self.threat,
            settings=FeatureAttackSettings(steps=25, seed=self.seed, **self.sizes),
            classifier=self.classifier,
            y=self.y,
        )

    def lipschitz(self) -> LipschitzCertificate:
        from robrep_eval.measures.lipschitz import certify_lipschitz

        return certify_lipschitz(
            self.classifier, self.x, self.y, self.threat, **self.sizes
        )

    def smoothing(self) -> SmoothingCertificate:
        """The head is fitted on noisy features, unless the classifier came whole."""
        from robrep_eval.measures.certify import certify_smoothing, noisy_probe

        settings, record = self.settings.smoothing, self.finished.result.probe
        base, probe = self.classifier, "the classifier's own head"
        if record is not None:
            base = noisy_probe(
                self.classifier.encoder,
                self.finished.train(),
                shape=self.classifier.shape,
                settings=settings,
                l2=float(record.parameters.get("l2", DEFAULT_L2)),
                **self.sizes,
            )
            probe = "fitted on features of noisy images"
        count = min(len(self.y), self.settings.smoothing_limit)
        rows = torch.linspace(0, len(self.y) - 1, count).round().long()
        return certify_smoothing(
            base,
            self.x[rows],
            self.y[rows],
            settings=settings,
            eps=self.threat.eps if self.threat.norm == "L2" else settings.sigma,
            probe=probe,
            index=self.finished.data.positions[rows.numpy()].tolist(),
            device=self.finished.device,
            on_progress=self.on_progress,
        )

    def corruptions(self) -> Corruptions:
        from robrep_eval.measures.corruptions import measure_corruptions

        assert self.settings.corruptions is not None
        return measure_corruptions(
            self.classifier,
            self.finished.data,
            self.settings.corruptions,
            seed=self.seed,
            **self.sizes,
        )
