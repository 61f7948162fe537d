"""The typed record of a run, from what its plan and its attacks say."""

from __future__ import annotations

from robrep_eval.attacks.battery import Battery
from robrep_eval.run.engine import Run
from robrep_eval.run.plan import Plan
from robrep_eval.run.provenance import provenance
from robrep_eval.run.run_folder import RunFolder
from zoo.classifier import Classifier
from zoo.classifier_file import parameter_count
from zoo.encoder import fingerprint
from zoo.records import (
    AttackRun,
    Audit,
    DatasetRecord,
    Evidence,
    ModelRecord,
    Outcome,
    ProbeRecord,
    Result,
    Verdict,
)
from zoo.task_version import end_of_grid, task_version
from zoo.two_phases import recount
from zoo.verdicts import (
    clean_accuracy,
    mean_per_class,
    robust_accuracy,
    robust_under,
)


def record(
    plan: Plan,
    folder: RunFolder,
    classifier: Classifier,
    probe: ProbeRecord | None,
    found: Run,
    evidence: Evidence,
    seconds: dict[str, float],
) -> Result:
    """What a run came to, as it is saved.

    Args:
        plan: What was asked for.
        folder: Holds the classifier that was attacked.
        classifier: The same.
        probe: How its head was fitted; None for a ready-made classifier.
        found: Outcomes of the attacks.
        evidence: Where the adversarials are.
        seconds: By stage.
    """
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
        per_class=mean_per_class(found.examples),
        task=task_version(data.name, probe),
        undecided=sum(v is Verdict.UNDECIDED for v in found.examples.verdict),
        attacks=_attack_runs(plan.battery, found),
        audit=_audit(plan.battery, found, settings.seed),
        examples=found.examples,
        evidence=evidence,
        seconds=seconds,
        provenance=provenance(settings.device, list(plan.request.command)),
        notes=[*plan.notes, *_about(probe), *found.warnings],
    )


def _about(probe: ProbeRecord | None) -> list[str]:
    """Notes on the fit."""
    warning = end_of_grid(probe) if probe else ""
    return [warning] if warning else []


def _audit(battery: Battery, found: Run, seed: int) -> Audit | None:
    """What the attacks on a sample came to."""
    if not battery.audited:
        return None
    names = [attack.name for attack in battery.attacks]
    before, audited = names[: -battery.audited], names[-battery.audited :]
    return recount(found.examples, before, audited, battery.sample, seed)


def _attack_runs(battery: Battery, found: Run) -> list[AttackRun]:
    names = [attack.name for attack in battery.attacks]
    sequence = [attack.sequence for attack in battery.attacks]
    runs = []
    for at, attack in enumerate(battery.attacks):
        outcomes = found.examples.outcomes[attack.name]
        network = found.network.get(attack.name)
        runs.append(
            AttackRun(
                name=attack.name,
                engine=attack.engine,
                sequence=attack.sequence,
                parameters=attack.parameters
                | ({"network": network} if network else {}),
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
