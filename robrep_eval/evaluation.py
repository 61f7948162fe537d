"""The whole way in one page: model -> probe -> classifier -> attacks -> result."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from robrep_eval.battery import Battery
from robrep_eval.engine import Progress, Run, run_battery
from robrep_eval.measure import Finished, measure, missing
from robrep_eval.plan import Plan, Request, prepare
from robrep_eval.probes import fit_probe
from robrep_eval.provenance import provenance
from robrep_eval.run_folder import RunFolder
from robrep_eval.shards import Shards
from zoo import datasets
from zoo.classifier import Classifier
from zoo.classifier_file import parameter_count
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder, fingerprint
from zoo.records import (
    AttackRun,
    DatasetRecord,
    Evidence,
    ModelRecord,
    Outcome,
    ProbeRecord,
    Result,
    Verdict,
)
from zoo.verdicts import clean_accuracy, robust_accuracy, robust_under
from zoo.verification import read_claims


def evaluate(
    model: str | Encoder | Classifier,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_stage: Callable[[str], None] = lambda _: None,
    **options: object,
) -> Result:
    """Probes an encoder, attacks the classifier, checks every claim.

    >>> from robrep_eval import evaluate
    >>> result = evaluate("zoo:tarrl-digits", eps=0.1, attacks="standard")
    >>> print(result.robust)  # doctest: +SKIP

    Args:
        model: A reference such as "zoo:NAME", an `Encoder` or a `Classifier`.
        on_progress: Called as the battery advances.
        on_stage: Called with one line before each stage.
        options: Fields of `Request`.

    Raises:
        UserError: anything the caller can mend, before any file is written.
    """
    request = Request(model=model, **options)  # type: ignore[arg-type]
    return run_plan(prepare(request), on_progress=on_progress, on_stage=on_stage)


def run_plan(
    plan: Plan,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Result:
    """Carries out what `prepare` planned; goes on with an unfinished run folder."""
    shards = Shards.from_environment()
    if plan.output is None:
        with tempfile.TemporaryDirectory(prefix="robrep-") as temporary:
            folder = RunFolder.open(Path(temporary), plan.identity)
            return _run(plan, folder, Shards(), on_progress, on_stage)
    if not shards.leader:
        return _assist(plan, plan.output, shards, on_progress, on_stage)
    if plan.request.overwrite and not shards.restarted:
        shutil.rmtree(plan.output, ignore_errors=True)
    folder = RunFolder.open(plan.output, plan.identity)
    result = folder.finished()
    if result is not None:
        shards.announce("ready")
        result = _measure(plan, folder, result, on_stage)
        on_stage(f"nothing left to do: {folder.result_path} is complete")
    else:
        result = _run(plan, folder, shards, on_progress, on_stage)
    shards.announce("finished")
    return result


def _assist(
    plan: Plan,
    output: Path,
    shards: Shards,
    on_progress: Callable[[Progress], None],
    on_stage: Callable[[str], None],
) -> Result:
    """The part of the processes that do not lead: chunks, until none is left."""
    shards.wait("ready")
    folder = RunFolder.open(output, plan.identity)
    if folder.finished() is None:
        classifier, _ = _classifier(plan, folder, on_stage)
        run_battery(
            classifier,
            plan.data,
            plan.threat,
            plan.battery,
            settings=plan.request.settings,
            folder=folder.chunks,
            on_progress=on_progress,
            shards=shards,
        )
    shards.wait("finished")
    result = folder.finished()
    assert result is not None
    return result


def _run(
    plan: Plan,
    folder: RunFolder,
    shards: Shards,
    on_progress: Callable[[Progress], None],
    on_stage: Callable[[str], None],
) -> Result:
    """Probe, attack, record; each part is taken from the folder if it is there."""
    began = time.perf_counter()
    classifier, probe = _classifier(plan, folder, on_stage)
    shards.announce("ready")
    probed = time.perf_counter()
    on_stage(f"attacking {len(plan.data)} images within {plan.threat}")
    found = run_battery(
        classifier,
        plan.data,
        plan.threat,
        plan.battery,
        settings=plan.request.settings,
        folder=folder.chunks,
        on_progress=on_progress,
        shards=shards,
    )
    seconds = {
        "probe": probed - began,
        "attacks": sum(found.seconds.values()),
        "total": time.perf_counter() - began,
    }
    evidence = folder.write_evidence(
        found.positions,
        found.attack_index,
        found.parts(),
        shape=plan.data.shape,
        tolerance=plan.threat.tolerance(plan.data.shape),
    )
    result = _record(plan, folder, classifier, probe, found, evidence, seconds)
    folder.finish(result)
    return _measure(plan, folder, result, on_stage)


def _measure(
    plan: Plan, folder: RunFolder, result: Result, on_stage: Callable[[str], None]
) -> Result:
    """Adds the measurements that were asked for and that the result lacks."""
    saved = folder.classifier()
    assert saved is not None
    classifier, _ = saved
    probed = classifier.linear is not None
    if not missing(plan.request.measure, result, probed=probed):
        return result
    claims = read_claims(folder.path, result)
    settings = plan.request.settings
    finished = Finished(
        result=result,
        classifier=classifier.to(settings.device),
        data=plan.data,
        positions=claims.positions,
        attack_index=claims.attack_index,
        images=claims.images,
        train=lambda: _training_images(plan),
        batch_size=settings.batch_size,
        device=settings.device,
    )
    measured = measure(finished, plan.request.measure, on_stage=on_stage)
    folder.finish(measured)
    return measured


def _training_images(plan: Plan) -> Dataset:
    """The training split that goes with the evaluated images."""
    return plan.request.train or datasets.load(
        plan.data.name, "train", data_dir=plan.request.data_dir
    )


def _classifier(
    plan: Plan, folder: RunFolder, on_stage: Callable[[str], None]
) -> tuple[Classifier, ProbeRecord | None]:
    """From the folder, ready-made, or encoder plus a probe fitted now."""
    device = plan.request.settings.device
    saved = folder.classifier()
    if saved is not None:
        on_stage(f"going on with the run in {folder.path}")
        return saved[0].to(device), saved[1]
    probe = None
    classifier = plan.loaded.classifier
    if classifier is None:
        train = _training_images(plan)
        on_stage(f"fitting a linear probe on {len(train)} images of {train.name}")
        classifier, probe = _fit(plan, train)
    folder.save_classifier(classifier, probe, plan.loaded.reference)
    return classifier.to(device), probe


def _fit(plan: Plan, train: Dataset) -> tuple[Classifier, ProbeRecord]:
    """SLF, with k-NN on the test features as a sanity figure."""
    encoder = plan.loaded.encoder
    assert encoder is not None
    settings = plan.request.settings
    return fit_probe(
        encoder.to(settings.device),
        train,
        test=plan.data,
        settings=plan.request.probe,
        batch_size=settings.batch_size,
        device=settings.device,
    )


def _record(
    plan: Plan,
    folder: RunFolder,
    classifier: Classifier,
    probe: ProbeRecord | None,
    found: Run,
    evidence: Evidence,
    seconds: dict[str, float],
) -> Result:
    """The typed record of all of it."""
    settings, data = plan.request.settings, plan.data
    return Result(
        model=ModelRecord(
            reference=plan.loaded.reference,
            arch=plan.loaded.arch,
            parameters=parameter_count(classifier),
            weights_sha256=fingerprint(classifier),
            file=folder.classifier_path.name,
            file_sha256=folder.classifier_sha256(),
            training=plan.loaded.training,
        ),
        probe=probe,
        dataset=DatasetRecord(
            name=data.name,
            split=data.split,
            n=len(data),
            sha256=data.fingerprint(),
            classes=len(data.classes),
            shape=data.shape,
        ),
        threat=plan.threat,
        battery=plan.battery.name,
        engine=plan.battery.engine,
        chunk_size=settings.chunk_size,
        seed=settings.seed,
        clean=clean_accuracy(found.examples),
        robust=robust_accuracy(found.examples),
        undecided=sum(v is Verdict.UNDECIDED for v in found.examples.verdict),
        attacks=_attack_runs(plan.battery, found),
        examples=found.examples,
        evidence=evidence,
        seconds=seconds,
        provenance=provenance(settings.device, list(plan.request.command)),
        notes=found.warnings,
    )


def _attack_runs(battery: Battery, found: Run) -> list[AttackRun]:
    names = [attack.name for attack in battery.attacks]
    sequence = [attack.sequence for attack in battery.attacks]
    runs = []
    for at, attack in enumerate(battery.attacks):
        outcomes = found.examples.outcomes[attack.name]
        runs.append(
            AttackRun(
                name=attack.name,
                engine=attack.engine,
                sequence=attack.sequence,
                parameters=attack.parameters,
                attempted=sum(o is not Outcome.SKIPPED for o in outcomes),
                fooled=outcomes.count(Outcome.FOOLED),
                refused=outcomes.count(Outcome.REFUSED),
                undecided=outcomes.count(Outcome.UNDECIDED),
                robust=robust_under(found.examples, names, sequence, at),
                seconds=found.seconds[attack.name],
                notes=found.notes[attack.name],
            )
        )
    return runs
