"""The downstream protocols by name, each with all labels or a few."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from robrep_eval.probes.adversarial import fit_adversarial
from robrep_eval.probes.feature_files import FeatureFiles
from robrep_eval.probes.few_labels import few_labels
from robrep_eval.probes.linear import FROZEN, ProbeSettings, fit_probe
from robrep_eval.probes.team import ALONE, Team
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.layout import ON_CPU, Layout
from zoo.records import ProbeRecord
from zoo.threat import ThreatModel

DESCRIPTIONS = {
    "SLF": "fitting a linear probe (SLF)",
    "SLF-R": "fitting a linear probe, its penalty chosen under attack (SLF-R)",
    "ALF": "fitting a linear probe on adversarial images (ALF)",
    "AFF": "fine-tuning encoder and head on adversarial images (AFF)",
}


def fit(
    encoder: Encoder,
    train: Dataset,
    threat: ThreatModel,
    *,
    test: Dataset | None = None,
    settings: ProbeSettings | None = None,
    labels_seed: int = 0,
    layout: Layout = ON_CPU,
    files: FeatureFiles | None = None,
    team: Team = ALONE,
    checkpoint: Path | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
) -> tuple[Classifier, ProbeRecord]:
    """Fits the probe that the settings name.

    Args:
        encoder: Left as it is; AFF trains a copy.
        train: The whole training split; `settings.labels` says how much of it is used.
        threat: What ALF and AFF train against, and under which SLF-R chooses.
        test: For the k-NN figure beside SLF.
        settings: Protocol and labels among them.
        labels_seed: Which images, if not all.
        layout: Where the encoder lives, and images per forward pass.
        files: Where features are kept (SLF, SLF-R); in memory by default.
        team: Processes that do this together (SLF).
        checkpoint: File to keep an unfinished ALF or AFF in.
        on_progress: Called with the share of the work done (ALF and AFF).

    Raises:
        UserError: as `fit_probe` and `few_labels`.
    """
    settings = settings or ProbeSettings()
    part = few_labels(train, settings.labels, labels_seed)
    if settings.protocol in FROZEN:
        classifier, record = fit_probe(
            encoder,
            part,
            threat=threat,
            test=test,
            settings=settings,
            layout=layout,
            files=files,
            of=train,
            team=team,
        )
    else:
        classifier, record = fit_adversarial(
            encoder,
            part,
            threat,
            protocol="AFF" if settings.protocol == "AFF" else "ALF",
            probe=settings,
            layout=layout,
            checkpoint=checkpoint,
            on_progress=on_progress,
        )
    if settings.labels is None:
        return classifier, record
    parameters = {**record.parameters, "labels_seed": labels_seed}
    return classifier, record.model_copy(
        update={"labels": settings.labels, "parameters": parameters}
    )
