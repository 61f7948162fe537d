"""The whole way in one page: model -> probe -> classifier -> attacks -> result."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Unpack

import torch
from torch import nn

from robrep_eval.attacks.problem import physical_batch
from robrep_eval.measures.base import Finished
from robrep_eval.measures.measure import measure, missing
from robrep_eval.probes.few_labels import few_labels
from robrep_eval.report import write_report
from robrep_eval.run.callbacks import Callbacks, showing
from robrep_eval.run.classifiers import (
    TOGETHER,
    armed,
    classifier_of,
    fit_planned,
    saved_classifier,
)
from robrep_eval.run.engine import Progress, Run, run_battery
from robrep_eval.run.images import training_images
from robrep_eval.run.options import Options, own_data, request_options
from robrep_eval.run.plan import Plan, prepare
from robrep_eval.run.record import record
from robrep_eval.run.request import Request
from robrep_eval.run.run_folder import ANOTHER, RunFolder, overwrite
from robrep_eval.run.shards import Shards
from zoo.arithmetic import full_float32
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.datasets.local import note as note_images
from zoo.errors import UserError
from zoo.evidence_file import read_claims
from zoo.layout import Layout
from zoo.locks import in_use
from zoo.records import Result
from zoo.threads import fitting_threads, network_work
from zoo.writable import check_writable

RECORDED = "recorded"
"""What the leading process announces before all measure what is asked for further."""


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
            fit_planned(plan, encoder, model, probe, what, folder, tell, team)
    shards.wait("ready")
    if not folder.result_path.exists():  # the leader may be adding to it
        saved = saved_classifier(plan, folder)
        assert saved is not None
        classifier = saved[0].to(plan.request.settings.device)
        _attack(armed(plan, folder, tell), folder, classifier, shards, tell)
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
    classifier, probe = classifier_of(plan, folder, tell, shards)
    plan = armed(plan, folder, tell)
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


def _measure(
    plan: Plan, folder: RunFolder, result: Result, tell: Callbacks, shards: Shards
) -> Result:
    """Adds the measurements that were asked for and that the result lacks.

    All processes come here, and share them out; the leading one adds them.
    """
    saved = saved_classifier(plan, folder)
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


def _physical(layout: Layout, data: Dataset) -> Layout:
    """With batches no larger than the engine's own, which a gradient fits in."""
    pixel = torch.empty(1, device=layout.device).expand(1, *data.shape)
    return replace(layout, batch_size=physical_batch(pixel, layout.batch_size))
