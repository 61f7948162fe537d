"""The leaderboard as one self-contained HTML page: no network, no foreign script.

The page holds the figures once, as columns; its script shows those of one dataset and
threat model at a time, so that ten thousand entries are as quick as ten.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from zoo.board.leaderboard import Board, Row
from zoo.board.transfer import Cell, Table, transfer
from zoo.claims import EXPLAINED, UNPROVEN, Basis, names
from zoo.collection.sources_embedded import EMBEDDED
from zoo.judgement import mark
from zoo.pages.html_page import render
from zoo.records import Card, Proportion

Columns = dict[str, list[Any]]


def page(board: Board, title: str = "Robust encoders") -> str:
    """The whole page as text.

    Args:
        board: What to show.
        title: Heading of the page.
    """
    tasks = Counter(_task(row) for row in board.rows).most_common()
    tables = transfer(board)
    return render(
        "leaderboard.html.j2",
        styles=["leaderboard.css"],
        scripts=(
            "leaderboard_plot.js",
            "leaderboard_transfer.js",
            "leaderboard.js",
        ),
        title=title,
        board=board,
        tasks=tasks,
        tables=tables,
        verify=f"robrep-zoo verify NAME{_option(board)}",
        option=_option(board),
        claims=[(basis, EXPLAINED[basis], names(basis)) for basis in Basis],
        unproven=UNPROVEN,
        data=_script_safe(_data(board, [name for name, _ in tasks], tables)),
    )


def _data(board: Board, tasks: list[str], tables: Sequence[Table]) -> dict[str, Any]:
    """All that the script shows; texts that repeat are numbers, into `texts`."""
    texts: dict[str, int] = {}
    cards = {row.card.name: row.card for row in board.rows}
    # Of a group without ranks, how many there are.
    sizes: dict[str, int] = Counter(row.group for row in board.rows)
    sizes = {**sizes, **Counter(row.group for row in board.rows if row.ranked)}
    encoder_at = {name: at for at, name in enumerate(cards)}
    task_at = {name: at for at, name in enumerate(tasks)}
    entries = [
        {
            "encoder": encoder_at[row.card.name],
            "task": task_at[_task(row)],
            "rivals": sizes[row.group],
            **_entry(row, texts),
        }
        for row in board.rows
    ]
    return {
        "tasks": tasks,
        "verify": _option(board),
        "encoders": _columns([_encoder(card, texts) for card in cards.values()]),
        "entries": _columns(entries),
        "transfer": [_table(table) for table in tables],
        "texts": list(texts),  # last, when all are in
    }


def _table(table: Table) -> dict[str, Any]:
    """As the script takes it: of figures the share and its interval."""
    found = {**table.model_dump(), "title": table.title}
    for line, told in zip(table.lines, found["lines"], strict=True):
        told["cells"] = [cell and _cell(cell) for cell in line.cells]
        told["mark"] = mark(line.judgement)
        told["worst_mark"] = mark(line.worst_judgement)
    return found


def _cell(cell: Cell) -> dict[str, Any]:
    figures = {"clean": cell.clean, "robust": cell.robust}
    shares = {k: (v.value, v.low, v.high) for k, v in figures.items()}
    return {**shares, "mark": cell.mark}


def _entry(row: Row, texts: dict[str, int]) -> dict[str, Any]:
    return {
        "name": _text(row.reference, texts),
        "protocol": _text(row.protocol, texts),
        "rank": row.rank,
        "last": row.last,
        **_figure("clean", row.clean),
        **_figure("robust", row.robust),
        "worst": float(f"{100 * row.worst.value:.1f}") if row.worst else None,
        "worst_by": _text(", ".join(row.worst_by), texts),
        "undecided": row.undecided,
        "battery": _text(f"{row.battery} ({row.engine})", texts),
        "parameters": row.parameters,
        "checks": _text(row.judgement, texts),
        "doubts": None if row.doubts is None else _text(" ".join(row.doubts), texts),
        "verified": int(bool(row.verified)),
    }


def _figure(name: str, figure: Proportion) -> dict[str, Any]:
    """Counts to sort by, and per cent as all other forms print them."""
    shown = {"": figure.value, "_low": figure.low, "_high": figure.high}
    percents = {f"{name}{end}": float(f"{100 * v:.1f}") for end, v in shown.items()}
    return {f"{name}_k": figure.k, f"{name}_n": figure.n, **percents}


def _encoder(card: Card, texts: dict[str, int]) -> dict[str, Any]:
    training = card.training
    made = f"trained on {training.dataset} against {training.threat or 'nothing'}"
    made += ", with labels" if training.labels else ""
    made += ", with data beyond it" if training.extra_data else ""
    told = {
        "description": card.description,
        "arch": card.arch,
        "method": training.method,
        "made": made,
        "licence": card.licence,
        "source": card.source,
        "command": training.command or "",
        "notes": card.notes,
    }
    return {
        "name": card.name,
        "dim": card.dim,
        "labels": int(training.labels),
        "link": int(_is_link(card.source)),
        "sha256": card.sha256,
        **{key: _text(value, texts) for key, value in told.items()},
    }


def _is_link(text: str) -> bool:
    try:
        return urlsplit(text).scheme == "https"
    except ValueError:  # "https://["
        return False


def _task(row: Row) -> str:
    """What the page shows at a time: "cifar10, Linf 8/255"."""
    split = "" if row.split == "test" else f"/{row.split}"
    battery = "" if row.battery == "standard" else row.battery
    words = [f"{row.dataset}{split}", str(row.threat), battery, row.images, row.version]
    return ", ".join(filter(None, words))


def _option(board: Board) -> str:
    """What a shell needs to hear of the source."""
    if board.source == EMBEDDED:
        return ""
    return f" {shlex.join(['--source', board.source])}"


def _text(text: str, texts: dict[str, int]) -> int:
    """Its place among the texts."""
    return texts.setdefault(text, len(texts))


def _columns(rows: list[dict[str, Any]]) -> Columns:
    """Each name once, with the values of all rows."""
    return {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}


def _script_safe(data: dict[str, Any]) -> str:
    """JSON that no text in it can end or turn into markup."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c")
