"""Transfer: one encoder on several datasets, each an evaluation of its own, one table.

Every dataset has its own run folder, so a killed command goes on where it was, and a
dataset that was evaluated before is not evaluated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from robrep_eval.run.evaluation import Callbacks, run_plan
from robrep_eval.run.plan import Plan, Request, prepare, safe_name
from robrep_eval.run.shards import leading
from zoo.datasets.names import FOLDER
from zoo.errors import UserError
from zoo.records import Proportion, Record, Result, read_record, write_record
from zoo.threat import ThreatModel

TABLE = "transfer.json"


class TransferRow(Record):
    """One dataset."""

    dataset: str
    n: int
    threat: ThreatModel
    protocol: str | None
    """Of the probe; null for a ready-made classifier."""
    train_n: int | None
    clean: Proportion
    robust: Proportion
    undecided: int
    seconds: float
    folder: str | None
    """Run folder, relative to the table where it lies below it."""

    @classmethod
    def of(cls, result: Result, folder: str | None) -> TransferRow:
        """From the result of one evaluation."""
        probe = result.probe
        return cls(
            dataset=result.dataset.name,
            n=result.dataset.n,
            threat=result.threat,
            protocol=probe.protocol if probe else None,
            train_n=probe.train_n if probe else None,
            clean=result.clean,
            robust=result.robust,
            undecided=result.undecided,
            seconds=result.seconds["total"],
            folder=folder,
        )


class TransferTable(Record):
    """One model on several datasets."""

    schema_version: Literal[1] = 1
    model: str
    battery: str
    engine: str
    rows: list[TransferRow]


def split_names(text: str) -> list[str]:
    """ "digits,mnist" as a list; the folder of one's own images may hold commas.

    Raises:
        UserError: an empty name, or the same one twice.
    """
    if text.startswith(FOLDER) and Path(text.removeprefix(FOLDER)).is_dir():
        return [text]
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"--dataset '{text}' names a dataset without a name")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"dataset '{min(twice)}' is named twice in '{text}'")
    return names


def evaluate_requested(
    request: Request, tell: Callbacks | None = None
) -> Result | TransferTable:
    """One result, or a table if the request names several datasets.

    Raises:
        UserError: as `robrep_eval.run.plan.prepare`.
    """
    tell = tell or Callbacks()
    names = split_names(request.dataset) if isinstance(request.dataset, str) else []
    if len(names) > 1:
        return evaluate_each(prepare_each(request, names), tell)
    plan = prepare(request)
    result = run_plan(plan, tell)
    tell.stage(f"saved in {plan.output}")
    return result


def prepare_each(request: Request, datasets: Sequence[str]) -> list[Plan]:
    """One plan for each dataset, all of them checked before any work begins.

    Raises:
        UserError: as `robrep_eval.run.plan.prepare`, for the first dataset that fails.
    """
    plans = []
    for name in datasets:
        output = request.output
        if isinstance(output, Path):
            output = output / safe_name(name)
        plans.append(prepare(replace(request, dataset=name, output=output)))
    return plans


def evaluate_each(
    plans: Sequence[Plan], tell: Callbacks | None = None
) -> TransferTable:
    """Runs all plans in turn and writes the table beside their folders.

    Args:
        plans: As `prepare_each` returns them.
        tell: Whom to tell how far it is.
    """
    tell = tell or Callbacks()
    path, rows, results = _table_path(plans), [], []
    _check_table(path)
    for at, plan in enumerate(plans, start=1):
        tell.stage(f"dataset {at} of {len(plans)}: {plan.data.name}")
        result = run_plan(plan, tell)
        results.append(result)
        rows.append(TransferRow.of(result, _relative(plan.output, path)))
    table = TransferTable(
        model=results[0].model.reference,
        battery=results[0].battery,
        engine=results[0].engine,
        rows=rows,
    )
    if path is not None and leading():
        write_record(path, table)
        tell.stage(f"table saved in {path}")
    return table


def _check_table(path: Path | None) -> None:
    """Raises `UserError` if something else than a table of ours would be replaced."""
    if path is None or not path.exists():
        return
    try:
        read_record(path, TransferTable)
    except (UserError, OSError):
        raise UserError(
            f"{path} is there already and is no table of robrep's; choose another "
            "--output"
        ) from None


def _table_path(plans: Sequence[Plan]) -> Path | None:
    """transfer.json in the folder asked for; among other runs a name of its own."""
    first = plans[0]
    if first.output is None:
        return None
    if first.request.output != "auto":
        return first.output.parent / TABLE
    names = "+".join(safe_name(plan.data.name) for plan in plans)
    rest = first.output.name.removeprefix(safe_name(first.data.name))
    return first.output.parent / f"transfer-{names}{rest}.json"


def _relative(folder: Path | None, table: Path | None) -> str | None:
    if folder is None or table is None:
        return None
    return str(folder.relative_to(table.parent))
