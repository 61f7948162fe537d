"""The transfer view: encoders by downstream tasks, with mean and worst.

One table for each suite, protocol with its version, and battery: figures of others are
not of one kind. What belongs to no suite stands in a table of its pretraining dataset.
Encoders of a table are those with a result on another task than their own, its columns
the tasks that they were measured on. Mean and worst are over the tasks that more than
half of the encoders have, and only of encoders that have all of these: a mean over
other tasks is another figure. It reads rows of the leaderboard and the suites that come
with robrep; intervals of a mean are in the tables of suites.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from zoo.batteries import CUSTOM, NONE
from zoo.board.leaderboard import Board, Row
from zoo.datasets.derived_names import parts_of
from zoo.datasets.names import split_name
from zoo.errors import UserError
from zoo.judgement import Judgement, mark, worst_of
from zoo.records import Proportion, Record
from zoo.schema import Share
from zoo.suites import names
from zoo.suites.suite import Suite, Task, load_suite
from zoo.threat import ThreatModel, parse_eps


class Cell(Record):
    """One encoder on one task."""

    clean: Proportion
    robust: Proportion
    judgement: Judgement
    """What the health checks make of it."""

    @property
    def mark(self) -> str:
        """Stands behind the robust figure, or nothing does."""
        return mark(self.judgement)


class Line(Record):
    """One encoder on the tasks of its table."""

    encoder: str
    method: str
    """Labels in pretraining are told: they are another setting."""
    labels: bool
    cells: list[Cell | None]
    """In the order of the tasks; null where nothing was measured."""
    clean_mean: Share | None
    clean_worst: Share | None
    robust_mean: Share | None
    robust_worst: Share | None
    """Over the counted tasks; null unless all of them were measured."""
    judgement: Judgement
    """The worst of these."""
    worst_judgement: Judgement
    """Of the task with the lowest robust figure."""

    @property
    def place(self) -> tuple[bool, bool, float, str]:
        """To sort by; a figure that says nothing stands behind those that do."""
        mean = self.robust_mean
        broken = self.judgement is Judgement.BROKEN
        return mean is None, broken, -(mean or 0), self.encoder


class Table(Record):
    """Encoders that were pretrained on one dataset, measured in one way, on tasks of
    one suite or on what is in none."""

    pretraining: str
    suite: str
    """Whose tasks these are, "digits, version 1"; empty: of none."""
    of: int
    """Tasks of the suite, measured or not; 0 without one."""
    kind: str
    """Protocol with its version, and battery: "SLF version 2, fast"."""
    tasks: list[str]
    counted: list[bool]
    """Whether mean and worst are over this task."""
    lines: list[Line]
    """Best robust mean first, then broken ones; those without one last, by name."""

    @property
    def title(self) -> str:
        """ "digits: suite digits, version 1; SLF version 2, fast"."""
        suite = f"suite {self.suite}; " if self.suite else ""
        return f"{self.pretraining}: {suite}{self.kind}"


def transfer(board: Board) -> list[Table]:
    """The tables of a leaderboard, most encoders first, of a suite before others."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in board.rows:
        if row.battery not in (CUSTOM, NONE) and not row.images:
            key = (row.card.training.dataset, _kind(row))
            groups.setdefault(key, []).append(row)
    suites = [load_suite(name) for name in names()]
    found = [
        table
        for (pretraining, kind), rows in groups.items()
        for table in _tables(
            pretraining,
            kind,
            rows,
            [suite for suite in suites if suite.pretraining == pretraining],
        )
    ]
    return sorted(found, key=lambda t: (-len(t.lines), not t.suite, t.title))


def _tables(
    pretraining: str, kind: str, rows: Sequence[Row], suites: Iterable[Suite]
) -> list[Table]:
    """Of each suite, and of what is in none of these."""
    found, placed = [], set[str]()
    for suite in suites:
        own = _moved(_of_suite(rows, suite))
        if own:
            found.append(_table(pretraining, kind, own, suite))
            placed |= {row.reference for row in own}
    rest = _moved([row for row in rows if row.reference not in placed])
    return [*found, *([_table(pretraining, kind, rest)] if rest else [])]


def _of_suite(rows: Sequence[Row], suite: Suite) -> list[Row]:
    """Those on its tasks, in its order; of each task those on as many images, read in
    the same way, as most are: more at a tie, but no more than the suite takes."""
    found = []
    for task in suite.tasks:
        threat = ThreatModel(norm=suite.norm, eps=parse_eps(task.eps))
        asked = (task.dataset, "test", threat, _labels(task))
        some = [
            row
            for row in rows
            if (row.dataset, row.split, row.threat, row.protocol.partition(", ")[2])
            == asked
            and row.clean.n <= suite.images
        ]
        counts = Counter(map(_measured, some))
        usual = max(counts, key=lambda one: (counts[one], one), default=None)
        found += [row for row in some if _measured(row) == usual]
    return found


def _measured(row: Row) -> tuple[int, int]:
    """On how many images, and by which version they were read."""
    return row.clean.n, _versions(row).get("dataset", 1)


def _labels(task: Task) -> str:
    """As protocols of entries say it."""
    return f"{task.labels} labels" if task.labels else ""


def _moved(rows: Sequence[Row]) -> list[Row]:
    """Those of encoders that have one on another task than their own among them."""
    moved = {row.card.name for row in rows if is_transfer(row)}
    return [row for row in rows if row.card.name in moved]


def _kind(row: Row) -> str:
    protocol = row.protocol.partition(",")[0]
    version = _versions(row).get("probe", 1)
    return f"{protocol}{f' version {version}' if version > 1 else ''}, {row.battery}"


def _versions(row: Row) -> dict[str, int]:
    """ "dataset 1, probe 2" as numbers; nothing if all are the first."""
    parts = (part.rpartition(" ") for part in row.version.split(", ") if part)
    return {name: int(number) for name, _, number in parts}


def is_transfer(row: Row) -> bool:
    """Whether an entry is on another task than the one of its pretraining's images."""
    return _task_of(row.dataset) != _task_of(row.card.training.dataset)


def _task_of(name: str) -> str:
    """A dataset without its size; of a name that says nothing, the name."""
    try:
        return split_name(name)[0]
    except UserError:
        return name


def _table(
    pretraining: str, kind: str, rows: Sequence[Row], suite: Suite | None = None
) -> Table:
    encoders: dict[str, dict[str, Row]] = {}
    for row in rows:
        encoders.setdefault(row.card.name, {}).setdefault(_heading(row), row)
    of: dict[str, Row] = {_heading(row): row for row in rows}
    own = _task_of(pretraining)
    tasks = list(of)  # of a suite in its order
    if suite is None:
        tasks.sort(key=lambda t: (not _near(of[t], own), is_transfer(of[t]), t))
    count = {task: sum(task in found for found in encoders.values()) for task in tasks}
    counted = [2 * count[task] > len(encoders) for task in tasks]
    lines = [_line(found, tasks, counted) for found in encoders.values()]
    lines.sort(key=lambda line: line.place)
    return Table(
        pretraining=pretraining,
        suite=suite.title if suite else "",
        of=len(suite.tasks) if suite else 0,
        kind=kind,
        tasks=tasks,
        counted=counted,
        lines=lines,
    )


def _near(row: Row, own: str) -> bool:
    """Whether the images are those of the pretraining, whatever is asked of them."""
    return parts_of(_task_of(row.dataset))[0] == parts_of(own)[0]


def _heading(row: Row) -> str:
    """Of the column: what two figures of a table must share to stand in it."""
    split = "" if row.split == "test" else f"/{row.split}"
    labels = row.protocol.partition(", ")[2]
    version = _versions(row).get("dataset", 1)
    changed = f"version {version}" if version > 1 else ""
    words = [f"{row.dataset}{split}", labels, str(row.threat), changed]
    return ", ".join(filter(None, words))


def _line(found: dict[str, Row], tasks: Sequence[str], counted: Sequence[bool]) -> Line:
    cells = [_cell(found[task]) if task in found else None for task in tasks]
    used = [cell for cell, counts in zip(cells, counted, strict=True) if counts]
    whole = [cell for cell in used if cell is not None]
    complete = bool(whole) and len(whole) == len(used)
    clean = [cell.clean.value for cell in whole]
    robust = [cell.robust.value for cell in whole]
    row = next(iter(found.values()))
    return Line(
        encoder=row.card.name,
        method=row.method,
        labels=row.card.training.labels,
        cells=cells,
        clean_mean=sum(clean) / len(clean) if complete else None,
        clean_worst=min(clean) if complete else None,
        robust_mean=sum(robust) / len(robust) if complete else None,
        robust_worst=min(robust) if complete else None,
        judgement=worst_of(cell.judgement for cell in whole),
        worst_judgement=worst_of(
            cell.judgement for cell in whole if cell.robust.value == min(robust)
        ),
    )


def _cell(row: Row) -> Cell:
    return Cell(clean=row.clean, robust=row.robust, judgement=row.judgement)
