"""The transfer view: encoders by downstream tasks, with mean and worst.

One table for each pretraining dataset. Its encoders are those with a result on another
task than their own, its columns the tasks that they were measured on. Mean and worst
are over the tasks that more than half of the encoders have, and only of encoders that
have all of these: a mean over other tasks is another figure. It reads rows of the
leaderboard and nothing else; intervals of a mean are in the tables of suites.
"""

from __future__ import annotations

from collections.abc import Sequence

from zoo.batteries import CUSTOM
from zoo.board.leaderboard import Board, Row
from zoo.datasets.derived_names import parts_of
from zoo.datasets.names import split_name
from zoo.errors import UserError
from zoo.judgement import mark
from zoo.records import Proportion, Record
from zoo.schema import Share


class Cell(Record):
    """One encoder on one task."""

    clean: Proportion
    robust: Proportion
    mark: str
    """Stands behind the robust figure: what the health checks found, or nothing."""


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


class Table(Record):
    """Encoders that were pretrained on one dataset."""

    pretraining: str
    tasks: list[str]
    counted: list[bool]
    """Whether mean and worst are over this task."""
    lines: list[Line]
    """Best robust mean first; those without one last, by name."""


def transfer(board: Board) -> list[Table]:
    """The tables of a leaderboard, by pretraining dataset; the largest first."""
    groups: dict[str, list[Row]] = {}
    for row in board.rows:
        if row.battery != CUSTOM and not row.images:
            groups.setdefault(row.card.training.dataset, []).append(row)
    found = [_table(name, rows) for name, rows in groups.items()]
    tables = [table for table in found if table.lines]
    return sorted(tables, key=lambda t: (-len(t.lines), t.pretraining))


def is_transfer(row: Row) -> bool:
    """Whether an entry is on another task than the one of its pretraining's images."""
    return _task_of(row.dataset) != _task_of(row.card.training.dataset)


def _task_of(name: str) -> str:
    """A dataset without its size; of a name that says nothing, the name."""
    try:
        return split_name(name)[0]
    except UserError:
        return name


def _table(pretraining: str, rows: Sequence[Row]) -> Table:
    moved = {row.card.name for row in rows if is_transfer(row)}
    rows = [row for row in rows if row.card.name in moved]
    encoders: dict[str, dict[str, Row]] = {}
    for row in rows:
        encoders.setdefault(row.card.name, {}).setdefault(_heading(row), row)
    of: dict[str, Row] = {_heading(row): row for row in rows}
    own = _task_of(pretraining)
    tasks = sorted(of, key=lambda t: (not _near(of[t], own), is_transfer(of[t]), t))
    count = {task: sum(task in found for found in encoders.values()) for task in tasks}
    counted = [2 * count[task] > len(encoders) for task in tasks]
    lines = [_line(found, tasks, counted) for found in encoders.values()]
    lines.sort(key=lambda line: (-(line.robust_mean or -1), line.encoder))
    return Table(pretraining=pretraining, tasks=tasks, counted=counted, lines=lines)


def _near(row: Row, own: str) -> bool:
    """Whether the images are those of the pretraining, whatever is asked of them."""
    return parts_of(_task_of(row.dataset))[0] == parts_of(own)[0]


def _heading(row: Row) -> str:
    """Of the column: what two figures must share to stand in it."""
    split = "" if row.split == "test" else f"/{row.split}"
    battery = "" if row.battery == "standard" else row.battery
    protocol = "" if row.protocol == "SLF" else row.protocol
    words = [f"{row.dataset}{split}", protocol, str(row.threat), battery, row.version]
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
    )


def _cell(row: Row) -> Cell:
    return Cell(clean=row.clean, robust=row.robust, mark=mark(row.judgement))
