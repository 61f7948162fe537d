"""Two results side by side, on the images they share (`zoo.paired` has the tests)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.datasets.names import OWN
from zoo.errors import UserError
from zoo.paired import PairedDifference, paired_difference
from zoo.records import AttackRun, Examples, Record, Result
from zoo.result_file import read_result
from zoo.task_version import version_of
from zoo.verdicts import Column, correct, robust, robust_against

Rows = npt.NDArray[np.intp]


class Comparison(Record):
    """All rows of one comparison."""

    a: str
    """Model and probe, e.g. "zoo:tarrl-digits (ALF, rate 0.1, 10% labels)"."""
    b: str
    dataset: str
    threat: str
    shared: int
    rows: list[PairedDifference]
    only_in_one: list[str]
    """Attacks that only one of the results has: not compared."""
    cautions: list[str]
    """What else than the classifiers differs, to be told before any figure."""


def compare(a: Result, b: Result) -> Comparison:
    """Clean, robust and each attack that both results have, on their shared examples.

    Raises:
        UserError: another dataset, split or threat model, other images in the same
            places, no shared example, or labels that contradict each other.
    """
    _check_comparable(a, b)
    rows_a, rows_b = _shared_rows(a.examples, b.examples)
    names_a, names_b = _names(a), _names(b)
    common = [name for name in names_a if name in names_b]
    columns = [
        ("clean", correct(a.examples), correct(b.examples)),
        ("robust", robust(a.examples), robust(b.examples)),
        *((name, _held(a, name), _held(b, name)) for name in common),
    ]
    return Comparison(
        a=described(a),
        b=described(b),
        dataset=f"{a.dataset.name}/{a.dataset.split}",
        threat=str(a.threat),
        shared=len(rows_a),
        rows=[
            paired_difference(name, of_a[rows_a], of_b[rows_b])
            for name, of_a, of_b in columns
        ],
        only_in_one=sorted(set(names_a) ^ set(names_b)),
        cautions=list(_cautions(a, b)),
    )


def compare_files(a: Path, b: Path) -> Comparison:
    """As `compare`, from result files or the folders that hold them."""
    return compare(read_result(a), read_result(b))


def described(result: Result) -> str:
    """The model, and what tells its probe from others on the same encoder."""
    probe = result.probe
    if probe is None:
        return result.model.reference
    chosen = "l2" if "l2" in probe.parameters else "rate"
    words = [probe.protocol]
    if chosen in probe.parameters:
        words.append(f"{chosen} {probe.parameters[chosen]:g}")
    if probe.labels:
        words.append(f"{probe.labels} labels")
    return f"{result.model.reference} ({', '.join(words)})"


def _check_comparable(a: Result, b: Result) -> None:
    differing = [
        (what, left, right)
        for what, left, right in (
            ("dataset", a.dataset.name, b.dataset.name),
            ("split", a.dataset.split, b.dataset.split),
            ("threat model", str(a.threat), str(b.threat)),
        )
        if left != right
    ]
    if differing:
        parts = [f"{what} {left} against {right}" for what, left, right in differing]
        raise UserError(
            f"the results cannot be compared: {'; '.join(parts)}; evaluate both on the "
            "same images under the same threat model"
        )
    if a.examples.index == b.examples.index and a.dataset.sha256 != b.dataset.sha256:
        raise UserError(
            f"the results cannot be compared: both are on the same positions of "
            f"{a.dataset.name}/{a.dataset.split}, but the images there differ (SHA-256 "
            f"{a.dataset.sha256[:12]} against {b.dataset.sha256[:12]}); evaluate both "
            "on the same images"
        )


def _cautions(a: Result, b: Result) -> Iterator[str]:
    """Differences that a figure would be mistaken without, in sentences."""
    tasks = [_task(result) for result in (a, b)]
    if tasks[0] != tasks[1]:
        yield (
            f"A is of {tasks[0]}, B of {tasks[1]}: the rows compare protocols as well "
            "as encoders"
        )
    if a.battery != b.battery:
        yield (
            f"A was attacked with {a.battery}, B with {b.battery}: the row 'robust' is "
            "the worst case over each one's own attacks, so it compares the attacks too"
        )
    if a.dataset.name.startswith(OWN) and a.dataset.sha256 != b.dataset.sha256:
        yield (
            "the results are on different parts of a folder, and nothing proves that "
            "it held the same images both times"
        )
    runs_b = {run.name: run for run in b.attacks}
    for run in a.attacks:
        if run.name in runs_b:
            yield from _settings_differ(run, runs_b[run.name])


def _task(result: Result) -> str:
    """Protocol and versions, as far as two results should share them."""
    version = version_of(result)
    protocol = result.probe.protocol if result.probe else "no protocol"
    words = [protocol if version.probe is None else f"{protocol} {version.probe}"]
    words += [f"dataset {version.dataset}"] * ((version.dataset or 1) > 1)
    return ", ".join(words)


def _settings_differ(a: AttackRun, b: AttackRun) -> Iterator[str]:
    """Whether an attack of one name was the same attack in both results."""
    if a.sequence != b.sequence:
        alone, after = ("A", "B") if b.sequence else ("B", "A")
        yield (
            f"{a.name} ran on all images in {alone}, in {after} only on those that "
            "earlier attacks had left: its rows count other things"
        )
    if a.engine.split()[0] != b.engine.split()[0]:
        return  # each engine names its settings in its own way
    names = a.parameters.keys() | b.parameters.keys()
    differing = [
        f"{name} {a.parameters.get(name)} against {b.parameters.get(name)}"
        for name in sorted(names)
        if a.parameters.get(name) != b.parameters.get(name)
    ]
    if differing:
        yield f"{a.name} ran with other settings: {', '.join(differing)}"


def _shared_rows(a: Examples, b: Examples) -> tuple[Rows, Rows]:
    """Rows of the examples that both have, by position in the published split.

    Raises:
        UserError: none shared, or a shared one has two labels.
    """
    index, rows_a, rows_b = np.intersect1d(a.index, b.index, return_indices=True)
    if not len(index):
        raise UserError("the results share no example; evaluate both on the same ones")
    wrong = index[np.array(a.label)[rows_a] != np.array(b.label)[rows_b]]
    if len(wrong):
        raise UserError(
            f"example {wrong[0]} has two different labels in the two results "
            f"({len(wrong)} such examples): they are not about the same images"
        )
    return rows_a, rows_b


def _names(result: Result) -> list[str]:
    return [run.name for run in result.attacks]


def _held(result: Result, name: str) -> Column:
    """Which examples held against the attack of this name."""
    names = _names(result)
    sequence = [run.sequence for run in result.attacks]
    return robust_against(result.examples, names, sequence, names.index(name))
