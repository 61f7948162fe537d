"""The classifier of a plan: from its folder, ready-made, or with a probe fitted now."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

from robrep_eval.probes.feature_files import FeatureFiles
from robrep_eval.probes.linear import ProbeSettings
from robrep_eval.probes.protocols import DESCRIPTIONS, fit
from robrep_eval.probes.team import ALONE, Team
from robrep_eval.run.callbacks import Callbacks
from robrep_eval.run.images import training_images
from robrep_eval.run.plan import Plan
from robrep_eval.run.run_folder import RunFolder
from robrep_eval.run.shards import Shards
from robrep_eval.run.surrogates import with_surrogates
from zoo.classifier import Classifier
from zoo.collection.references import LoadOptions, load
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.records import ProbeRecord

IN_MEMORY = 1 << 30
"""Bytes of features up to which they are kept in memory."""
TOGETHER = "together"
"""What the leading process announces before all fit the probe."""


def armed(plan: Plan, folder: RunFolder, tell: Callbacks) -> Plan:
    """The plan with the surrogates of its transfer attacks fitted."""

    def fit_surrogate(reference: str) -> Classifier:
        shape, classes = plan.data.shape, len(plan.data.classes)
        encoder = load(reference, LoadOptions(shape=shape, classes=classes)).encoder
        assert encoder is not None
        probe = ProbeSettings(labels=plan.request.probe.labels)
        sources = plan.identity["attacks"]["sources"]
        what = f"fitting a linear probe on {reference} to transfer from"
        return fit_planned(
            plan, encoder, sources[reference], probe, what, folder, tell
        )[0]

    battery = with_surrogates(plan.battery, folder.surrogate_path, fit_surrogate)
    return replace(plan, battery=battery)


def saved_classifier(
    plan: Plan, folder: RunFolder
) -> tuple[Classifier, ProbeRecord | None] | None:
    """What an earlier call kept; a ready-made classifier is at hand already."""
    ready = plan.loaded.classifier
    if ready is None:
        return folder.classifier(plan.loaded.encoder)
    return (ready, None) if folder.classifier_path.exists() else None


def classifier_of(
    plan: Plan, folder: RunFolder, tell: Callbacks, shards: Shards
) -> tuple[Classifier, ProbeRecord | None]:
    """From the folder, ready-made, or encoder plus a probe fitted now."""
    device = plan.request.settings.device
    saved = saved_classifier(plan, folder)
    together = plan.request.probe.protocol == "SLF" and plan.loaded.encoder is not None
    shards.announce("probe", TOGETHER if together and saved is None else "saved")
    if saved is not None:
        tell.stage(f"going on with the run in {folder.path}")
        return saved[0].to(device), saved[1]
    probe = None
    classifier = plan.loaded.classifier
    if plan.loaded.encoder is not None:
        settings = plan.request.probe
        labels = f" with {settings.labels} labels" if settings.labels else ""
        what = f"{DESCRIPTIONS[settings.protocol]} on {plan.data.name}{labels}"
        model = plan.identity["model"]
        with shards.team("the probe") if together else nullcontext(ALONE) as team:
            classifier, probe = fit_planned(
                plan, plan.loaded.encoder, model, settings, what, folder, tell, team
            )
    assert classifier is not None
    folder.save_classifier(classifier, probe, plan.loaded.reference)
    return classifier.to(device), probe


def fit_planned(
    plan: Plan,
    encoder: Encoder,
    model: object,
    probe: ProbeSettings,
    what: str,
    folder: RunFolder,
    tell: Callbacks,
    team: Team = ALONE,
) -> tuple[Classifier, ProbeRecord]:
    """The probe asked for; k-NN on the test features stands beside SLF.

    `model` is what tells the encoder from others, `what` the stage in words.
    """
    settings = plan.request.settings
    encoder = encoder.to(settings.device)

    def fresh() -> tuple[Classifier, ProbeRecord]:
        tell.stage(what)
        train = plan.training or training_images(plan.request, plan.data)
        where = plan.request.features
        if where is None and (team.world > 1 or _large(encoder, train)):
            where = folder.features_path
        for note in train.notes:
            tell.stage(note)
        return fit(
            encoder,
            train,
            plan.threat,
            test=plan.data,
            settings=probe,
            labels_seed=settings.seed,
            layout=settings.layout,
            files=None if where is None else FeatureFiles(folder=where),
            team=team,
            checkpoint=folder.fit_path,
            on_progress=tell.working,
        )

    if team.world > 1:  # what one process knows already, another may not
        return fresh()
    own = plan.request.model  # code at hand may differ where weights do not
    follows_from = {
        "model": model,
        "at_hand": None if isinstance(own, str) else id(own),
        "dataset": plan.identity["dataset"],
        "train": plan.identity["train"],
        "data_dir": str(plan.request.data_dir),
        "labels_seed": settings.seed,
    }
    return plan.fits.get(encoder, probe, follows_from, settings.layout, fresh)


def _large(encoder: Encoder, train: Dataset) -> bool:
    """Whether features are rather kept in files."""
    return 4 * encoder.dim * len(train) > IN_MEMORY
