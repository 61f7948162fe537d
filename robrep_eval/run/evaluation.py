"""The whole way in one page: model -> probe -> classifier -> attacks -> result."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Unpack

import torch
from torch import nn

from robrep_eval.attacks.problem import physical_batch
from robrep_eval.measures.base import Finished
from robrep_eval.measures.measure import measure, missing
from robrep_eval.probes.feature_files import FeatureFiles
from robrep_eval.probes.few_labels import few_labels
from robrep_eval.probes.linear import ProbeSettings
from robrep_eval.probes.protocols import DESCRIPTIONS, fit
from robrep_eval.probes.team import ALONE, Team
from robrep_eval.report import write_report
from robrep_eval.run.bar import bar
from robrep_eval.run.engine import Progress, Run, run_battery
from robrep_eval.run.images import training_images
from robrep_eval.run.options import Options, own_data, request_options
from robrep_eval.run.plan import Plan, prepare
from robrep_eval.run.record import record
from robrep_eval.run.request import Request
from robrep_eval.run.run_folder import ANOTHER, RunFolder, overwrite
from robrep_eval.run.shards import Shards
from robrep_eval.run.surrogates import with_surrogates
from zoo.arithmetic import full_float32
from zoo.classifier import Classifier
from zoo.collection.references import LoadOptions, load
from zoo.datasets.base import Dataset
from zoo.datasets.local import note as note_images
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.evidence_file import read_claims
from zoo.layout import Layout
from zoo.locks import in_use
from zoo.records import (
    ProbeRecord,
    Result,
)
from zoo.threads import fitting_threads, network_work
from zoo.writable import check_writable

IN_MEMORY = 1 << 30
"""Bytes of features up to which they are kept in memory."""
RECORDED = "recorded"
"""What the leading process announces before all measure what is asked for further."""
TOGETHER = "together"
"""What the leading process announces before all fit the probe."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Whom to tell how far an evaluation is."""

    progress: Callable[[Progress], None] = lambda _: None
    """As the battery advances."""
    stage: Callable[[str], None] = lambda _: None
    """One line before each stage."""
    working: Callable[[float], None] = lambda _: None
    """Share of a long fit or measurement that is done."""
    saved: Callable[[str], None] = lambda _: None
    """One line for each place where something to read was written."""


def evaluate(
    model: str | nn.Module,
    dataset: object | None = None,
    *,
    train: object | None = None,
    progress: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_stage: Callable[[str], None] = lambda _: None,
    on_work: Callable[[float], None] = lambda _: None,
    **options: Unpack[Options],
) -> Result:
    """Probes an encoder, attacks the classifier, checks every claim.

    Examples:
        >>> from robrep_eval import evaluate
        >>> result = evaluate("zoo:tarrl-digits", eps=0.1, attacks="standard")
        >>> print(result.robust)  # doctest: +SKIP

    Args:
        model: A reference such as "zoo:NAME", an `Encoder`, a `Classifier`, or any
            module that gives features or logits (see `kind`, `mean` and `std`); a
            module is copied and left as it is.
        dataset: Name or images to evaluate on, by default the encoder's own: a pair
            (images, labels), a torch Dataset or DataLoader, a Hugging Face split, or
            robrep's own `Dataset`; see `zoo.datasets.foreign`.
        train: What the probe is fitted on, of the same kinds; by default the training
            split of a dataset that has a name.
        progress: Draws a bar, in scripts and notebooks, in place of the callbacks.
        on_progress: Called as the battery advances.
        on_stage: Called with one line before each stage.
        on_work: Called with the share of a long fit or measurement that is done.
        options: Named as those of the command `robrep-eval`; see `Options`.

    Raises:
        UserError: anything the caller can mend, before any file is written.
    """
    for value in (model, options.get("eps"), options.get("probe")):
        if isinstance(value, list):
            raise UserError(f"{value} is a list; evaluate_all takes several of them")
    fields = request_options(options)
    images, training = own_data(dataset, train, options)
    request = Request(model=model, dataset=images, train=training, **fields)
    with showing(progress, on_progress, on_stage, on_work) as tell:
        return run_plan(prepare(request), tell)


@contextmanager
def showing(
    progress: bool,
    on_progress: Callable[[Progress], None],
    on_stage: Callable[[str], None],
    on_work: Callable[[float], None],
) -> Iterator[Callbacks]:
    """The callbacks, or a bar in place of them."""
    if not progress:
        yield Callbacks(
            progress=on_progress, stage=on_stage, working=on_work, saved=on_stage
        )
        return
    with bar() as (on_progress, on_stage):
        yield Callbacks(
            progress=on_progress, stage=on_stage, working=on_work, saved=on_stage
        )


@full_float32()
def run_plan(plan: Plan, tell: Callbacks | None = None) -> Result:
    """Carries out what `prepare` planned; goes on with an unfinished run folder."""
    model = plan.loaded.classifier or plan.loaded.encoder
    assert model is not None
    with fitting_threads(network_work(model, plan.data.shape)):
        return _carry_out(plan, tell or Callbacks())


def _carry_out(plan: Plan, tell: Callbacks) -> Result:
    """The plan as one of its processes sees it."""
    shards = Shards.from_environment(str(plan.output))
    if plan.output is None:
        with tempfile.TemporaryDirectory(prefix="robrep-") as temporary:
            folder = RunFolder.open(Path(temporary), plan.identity)
            return _run(plan, folder, Shards(), tell)
    if not shards.leader:
        return _assist(plan, plan.output, shards, tell)
    with in_use(plan.output, wait=plan.request.wait):
        return _lead(plan, plan.output, shards, tell)


def _lead(plan: Plan, output: Path, shards: Shards, tell: Callbacks) -> Result:
    """The part of the process that prepares, merges and reports."""
    if plan.request.overwrite and not shards.restarted:
        overwrite(output, plan.identity)
    folder = RunFolder.open(output, plan.identity)
    if isinstance(plan.request.dataset, str):
        note_images(output, plan.request.dataset)
    result = folder.finished()
    if result is not None:
        shards.announce("probe", "saved")
        shards.announce("ready")
        shards.announce(RECORDED)
        result = _measure(plan, folder, result, tell, shards)
        tell.stage(f"nothing left to do: {folder.result_path} is complete")
    else:
        result = _run(plan, folder, shards, tell)
    shards.announce("finished")
    if plan.request.report:
        device = plan.request.settings.device
        model = plan.loaded.classifier or plan.loaded.encoder
        report = write_report(output, dataset=plan.data, device=device, model=model)
        tell.saved(f"report in {report}")
    return result


def _assist(plan: Plan, output: Path, shards: Shards, tell: Callbacks) -> Result:
    """The part of the processes that do not lead: chunks, until none is left."""
    together = shards.wait("probe") == TOGETHER
    folder = RunFolder.open(output, plan.identity)
    encoder = plan.loaded.encoder
    if together and encoder is not None:
        with shards.team("the probe") as team:
            what = "fitting the probe together"
            model = plan.identity["model"]
            probe = plan.request.probe
            _fit(plan, encoder, model, probe, what, folder, tell, team)
    shards.wait("ready")
    if not folder.result_path.exists():  # the leader may be adding to it
        saved = _saved(plan, folder)
        assert saved is not None
        classifier = saved[0].to(plan.request.settings.device)
        _attack(_armed(plan, folder, tell), folder, classifier, shards, tell)
    shards.wait(RECORDED)
    result = folder.finished()
    assert result is not None
    _measure(plan, folder, result, tell, shards)
    shards.wait("finished")
    result = folder.finished()
    assert result is not None
    return result


def _run(
    plan: Plan,
    folder: RunFolder,
    shards: Shards,
    tell: Callbacks,
) -> Result:
    """Probe, attack, record; each part is taken from the folder if it is there."""
    began = time.perf_counter()
    for note in plan.loaded.notes:
        tell.stage(note)
    classifier, probe = _classifier(plan, folder, tell, shards)
    plan = _armed(plan, folder, tell)
    shards.announce("ready")
    probed = time.perf_counter()
    tell.stage(f"attacking {len(plan.data)} images within {plan.threat}")
    found = _attack(plan, folder, classifier, shards, tell)
    seconds = {
        "probe": probed - began,
        "attacks": sum(found.seconds.values()),
        "total": time.perf_counter() - began,
    }
    evidence = folder.write_evidence(
        found.positions,
        found.attack_index,
        found.parts,
        tolerance=plan.threat.tolerance(plan.data.shape),
    )
    result = record(plan, folder, classifier, probe, found, evidence, seconds)
    folder.finish(result)
    shards.announce(RECORDED)
    return _measure(plan, folder, result, tell, shards)


def _attack(
    plan: Plan,
    folder: RunFolder,
    classifier: Classifier,
    shards: Shards,
    tell: Callbacks,
) -> Run:
    """The battery, on the images that no process has attacked yet."""
    return run_battery(
        classifier,
        plan.data,
        plan.threat,
        plan.battery,
        settings=plan.request.settings,
        folder=folder.chunks,
        on_progress=tell.progress,
        shards=shards,
    )


def _armed(plan: Plan, folder: RunFolder, tell: Callbacks) -> Plan:
    """The plan with the surrogates of its transfer attacks fitted."""

    def fit_surrogate(reference: str) -> Classifier:
        shape, classes = plan.data.shape, len(plan.data.classes)
        encoder = load(reference, LoadOptions(shape=shape, classes=classes)).encoder
        assert encoder is not None
        probe = ProbeSettings(labels=plan.request.probe.labels)
        sources = plan.identity["attacks"]["sources"]
        what = f"fitting a linear probe on {reference} to transfer from"
        return _fit(plan, encoder, sources[reference], probe, what, folder, tell)[0]

    armed = with_surrogates(plan.battery, folder.surrogate_path, fit_surrogate)
    return replace(plan, battery=armed)


def _measure(
    plan: Plan, folder: RunFolder, result: Result, tell: Callbacks, shards: Shards
) -> Result:
    """Adds the measurements that were asked for and that the result lacks.

    All processes come here, and share them out; the leading one adds them.
    """
    saved = _saved(plan, folder)
    assert saved is not None
    classifier, _ = saved
    settings = plan.request.settings
    finished = Finished(
        result=result,
        classifier=classifier.to(settings.device),
        data=plan.data,
        claims=cache(lambda: read_claims(folder.path, result, plan.data)),
        train=lambda: few_labels(
            training_images(plan.request, plan.data),
            plan.request.probe.labels,
            settings.seed,
        ),
        layout=_physical(settings.layout, plan.data),
    )
    lacking = missing(plan.request.measure, finished)
    if not lacking:
        return result
    check_writable(folder.path, ANOTHER)
    measured = measure(
        finished,
        lacking,
        processes=shards,
        on_stage=tell.stage,
        on_progress=tell.working,
    )
    if shards.leader:
        folder.finish(measured)
    return measured


def _saved(
    plan: Plan, folder: RunFolder
) -> tuple[Classifier, ProbeRecord | None] | None:
    """What an earlier call kept; a ready-made classifier is at hand already."""
    ready = plan.loaded.classifier
    if ready is None:
        return folder.classifier(plan.loaded.encoder)
    return (ready, None) if folder.classifier_path.exists() else None


def _classifier(
    plan: Plan, folder: RunFolder, tell: Callbacks, shards: Shards
) -> tuple[Classifier, ProbeRecord | None]:
    """From the folder, ready-made, or encoder plus a probe fitted now."""
    device = plan.request.settings.device
    saved = _saved(plan, folder)
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
            classifier, probe = _fit(
                plan, plan.loaded.encoder, model, settings, what, folder, tell, team
            )
    assert classifier is not None
    folder.save_classifier(classifier, probe, plan.loaded.reference)
    return classifier.to(device), probe


def _fit(
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


def _physical(layout: Layout, data: Dataset) -> Layout:
    """With batches no larger than the engine's own, which a gradient fits in."""
    pixel = torch.empty(1, device=layout.device).expand(1, *data.shape)
    return replace(layout, batch_size=physical_batch(pixel, layout.batch_size))
