"""Several models, datasets, radii and probes: an evaluation of each, and one table.

Each is what its single command would be, with a run folder of its own, so a killed
command goes on where it was, and what was evaluated before is not evaluated again. One
that fails is named in the table; the others go on. The table is written after each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from robrep_eval.probes.linear import ProbeSettings
from robrep_eval.run.callbacks import Callbacks, showing
from robrep_eval.run.engine import Progress
from robrep_eval.run.evaluation import run_plan
from robrep_eval.run.fits import Fits
from robrep_eval.run.options import SharedOptions, named, own_data, request_options
from robrep_eval.run.places import AXES, asked_for, placed, table_files
from robrep_eval.run.plan import check_request, prepare
from robrep_eval.run.request import Request, read_request
from robrep_eval.run.run_folder import ANOTHER
from robrep_eval.run.summary import Failure, Summary, SummaryRow, check_place
from zoo.datasets.names import OWN, recorded_name, split_name
from zoo.errors import RobrepError, UserError
from zoo.paths import user_path
from zoo.processes import leading
from zoo.threat import parse_eps
from zoo.writable import check_writable


def split_values(axis: str, words: Sequence[str]) -> list[str]:
    """["a,b", "c"] as ["a", "b", "c"]; a path that is there may hold commas.

    Args:
        axis: One of `AXES`, for the message.
        words: As typed, one for each time the option was given.

    Raises:
        UserError: an empty value, or the same one twice.
    """
    found: list[str] = []
    for word in words:
        whole = _is_path(axis, word)
        found += [word] if whole else [part.strip() for part in word.split(",")]
    if not all(found):
        raise UserError(f"--{axis} '{','.join(words)}' has an empty part")
    check_distinct(axis, found)
    return found


def check_distinct(axis: str, values: Sequence[object]) -> None:
    """Raises `UserError` for a value that is there twice, however it is written."""
    seen: dict[object, object] = {}
    for value in values:
        key: object = value
        if value is None:
            continue
        if axis == "eps":
            key = parse_eps(value)
        elif isinstance(value, str):
            key = value.lower() if axis == "probe" else value
        else:
            key = id(value)
        if key in seen:
            first = "" if seen[key] == value else f" (first as '{seen[key]}')"
            raise UserError(
                f"{axis} '{value}' is named twice{first}; commas and the option again "
                "both add to one list: name each once"
            )
        seen[key] = value


def _is_path(axis: str, word: str) -> bool:
    if "," not in word or axis not in ("model", "dataset"):
        return False
    if axis == "dataset":
        if not word.startswith(OWN):
            return False
        word = split_name(word)[0].partition(":")[2]
    return user_path(word).exists()


def combinations(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every choice of one value for each of `AXES`, in their order."""
    return [
        dict(zip(AXES, chosen, strict=True))
        for chosen in product(*(values[axis] for axis in AXES))
    ]


def read_requests(options: Mapping[str, Any], command: Sequence[str]) -> list[Request]:
    """What `robrep-eval run` was given: a request for each combination of `AXES`.

    Args:
        options: As `read_request` takes them, but with all words of each of `AXES`.
        command: The words as typed, for the record.

    Raises:
        UserError: as `split_values` and `read_request`.
    """
    values: dict[str, Sequence[Any]] = {}
    for axis in AXES:
        values[axis] = split_values(axis, options[axis]) or [None]
        check_distinct(axis, values[axis])
    values["dataset"] = [named(name, options) for name in values["dataset"]]
    return [read_request({**options, **one}, command) for one in combinations(values)]


def evaluate_all(
    models: str | nn.Module | Sequence[str | nn.Module],
    datasets: object | None = None,
    *,
    eps: float | str | Sequence[float | str] | None = None,
    probe: str | ProbeSettings | Sequence[str | ProbeSettings] = "slf",
    train: object | None = None,
    progress: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_stage: Callable[[str], None] = lambda _: None,
    on_work: Callable[[float], None] = lambda _: None,
    **options: Unpack[SharedOptions],
) -> Summary:
    """Evaluates each model on each dataset at each radius with each probe.

    Each evaluation is what `evaluate` makes of its four values. With `output="FOLDER"`
    each has a folder there, beside summary.json, .md and .tex, and the same call again
    goes on; without, nothing is kept but the table.

    >>> from robrep_eval import evaluate_all
    >>> table = evaluate_all(["zoo:tarrl-digits", "zoo:simclr-digits"], eps=[0.05, 0.1])
    ... # doctest: +SKIP
    >>> print(table.to_markdown())  # doctest: +SKIP

    Args:
        models: One or a list of what `evaluate` takes.
        datasets: One or a *list* of what `evaluate` takes; a tuple is one pair (images,
            labels). By default each encoder's own.
        eps: One radius or several.
        probe: One protocol or several.
        train: What probes are fitted on, beside one dataset.
        progress: Draws a bar, in scripts and notebooks, in place of the callbacks.
        on_progress: Called as a battery advances.
        on_stage: Called with one line before each stage.
        on_work: Called with the share of a long fit or measurement that is done.
        options: Of all evaluations, as `evaluate` takes them.

    Returns:
        The table; evaluations that failed are in `failed`, with their reasons.

    Raises:
        UserError: a name that nothing is known by, or a value that makes no sense.
    """
    values: dict[str, Sequence[Any]] = {
        "model": listed(models),
        "dataset": listed(datasets, pairs=True),
        "eps": listed(eps),
        "probe": listed(probe),
    }
    if train is not None and len(values["dataset"]) > 1:
        raise UserError("train= goes with one dataset, not with a list of them")
    for axis in AXES:
        if not values[axis]:
            raise UserError(f"the list of {axis} values is empty")
        check_distinct(axis, values[axis])
    data = {id(one): own_data(one, train, options) for one in values["dataset"]}
    requests = []
    for one in combinations(values):
        rest: dict[str, Any] = {"eps": one["eps"], "probe": one["probe"], **options}
        images, training = data[id(one["dataset"])]
        requests.append(
            Request(
                model=one["model"],
                dataset=images,
                train=training,
                **request_options(rest),
            )
        )
    with showing(progress, on_progress, on_stage, on_work) as tell:
        return evaluate_each(requests, tell)


def listed(value: object, *, pairs: bool = False) -> list[Any]:
    """Several as a list, anything else as the one part of a list.

    With `pairs` a tuple is one thing: images and labels.
    """
    if isinstance(value, tuple) and pairs:
        return [value]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def evaluate_each(
    requests: Sequence[Request],
    tell: Callbacks | None = None,
    *,
    summaries: Sequence[Path] = (),
) -> Summary:
    """Evaluates each request in turn; what they share is checked before any work.

    Args:
        requests: With one `output`: "auto", None, or a folder, in which each of several
            has a folder of its own and summary.json, .md and .tex are written.
        tell: Whom to tell how far it is.
        summaries: Further files to write the table to, by their endings.

    Raises:
        UserError: a name that nothing is known by, a value that makes no sense, or a
            summary's place that cannot be written or holds another file. What goes
            wrong later is in `Summary.failed`.
    """
    tell = tell or Callbacks()
    for request in requests:
        check_request(request)
    check_names(requests)
    runs = placed(requests)
    files = [*table_files(runs, requests[0].output), *summaries]
    for path in files:
        check_place(path)
    base = files[0].parent if files else None

    def keep(rows: list[SummaryRow], failed: list[Failure]) -> Summary:
        summary = Summary(
            battery=requests[0].attacks,
            engine=requests[0].engine,
            rows=rows,
            failed=failed,
            missing=len(runs) - len(rows) - len(failed),
        )
        if leading():
            for path in files:
                summary.save(path)
        return summary

    summary = keep(*run_each(runs, tell, base, keep))
    if leading():
        for path in files:
            tell.saved(f"summary saved in {path}")
    return summary


def run_each(
    runs: Sequence[Request],
    tell: Callbacks,
    base: Path | None,
    keep: Callable[[list[SummaryRow], list[Failure]], object],
) -> tuple[list[SummaryRow], list[Failure]]:
    """Evaluates requests that have their run folders; one that fails is told apart.

    Args:
        runs: In order.
        tell: Whom to tell how far it is.
        base: Folder that the rows' folders are relative to.
        keep: Called between two evaluations with all that there is so far, so that a
            killed command leaves it.

    Raises:
        UserError: `base` cannot be written.
    """
    if base is not None:
        check_writable(base, ANOTHER)
    rows: list[SummaryRow] = []
    failed: list[Failure] = []
    fits = Fits()
    for at, request in enumerate(runs, start=1):
        if at > 1:
            keep(rows, failed)
        asked = asked_for(request)
        labels = request.probe.labels
        told = [*asked.values(), labels and f"{labels} labels"]
        words = ", ".join(word for word in told if word)
        tell.stage(f"evaluation {at} of {len(runs)}: {words}")
        try:
            rows.append(_evaluate(request, fits, tell, base))
        except Exception as error:  # whatever it is, the others are worth having
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise  # the other processes wait for this one
            known = isinstance(error, (RobrepError, OSError))
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            failed.append(Failure(**_recorded(asked, request), error=reason))
            tell.stage(f"failed: {failed[-1]}")
    return rows, failed


def check_names(requests: Sequence[Request]) -> None:
    """Raises `UserError` if two folders of images would have one name in records."""
    known: dict[str, str] = {}
    for request in requests:
        if isinstance(request.dataset, str):
            name = recorded_name(request.dataset, request.dataset_name)
            other = known.setdefault(name, request.dataset)
            if other != request.dataset:
                raise UserError(
                    f"'{other}' and '{request.dataset}' would both be called '{name}'; "
                    "evaluate one in a command of its own, with --dataset-name"
                )


def _recorded(asked: dict[str, Any], request: Request) -> dict[str, Any]:
    """What was asked for, as records name it."""
    if not isinstance(request.dataset, str):
        return asked
    name = recorded_name(request.dataset, request.dataset_name)
    return {**asked, "dataset": name}


def _evaluate(
    request: Request, fits: Fits, tell: Callbacks, base: Path | None
) -> SummaryRow:
    plan = replace(prepare(request), fits=fits)
    result = run_plan(plan, tell)
    folder = plan.output
    if folder is not None and base is not None:
        folder = Path(os.path.relpath(folder, base))
    return SummaryRow.of(result, None if folder is None else folder.as_posix())
