"""The leaderboard as one self-contained HTML page: no network, no foreign script."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from zoo.board.leaderboard import Board, Row
from zoo.board.scatter import Plot, scatter
from zoo.collection.sources_embedded import EMBEDDED
from zoo.pages.html_page import render

FILTERS = ("dataset", "threat", "protocol", "method", "arch")
LABELS = {"threat": "threat model", "arch": "architecture"}


def page(board: Board, title: str = "Robust encoders") -> str:
    """The whole page as text.

    Args:
        board: What to show.
        title: Heading of the page.
    """
    rows = _views(board)
    plot: Plot = scatter(board.rows)
    return render(
        "leaderboard.html.j2",
        styles=["leaderboard.css"],
        script="leaderboard.js",
        title=title,
        board=board,
        rows=rows,
        plot=plot,
        filters=[_filter(name, rows) for name in FILTERS],
        verify=_verify("NAME", board),
    )


def _verify(name: str, board: Board) -> str:
    """The command that checks `name`, as a shell takes it."""
    words = ["robrep-zoo", "verify", name]
    if board.source != EMBEDDED:
        words += ["--source", board.source]
    return shlex.join(words)


def _views(board: Board) -> list[dict[str, Any]]:
    """Rows as the template wants them, each with its place in its group."""
    sizes = Counter(row.group for row in board.rows)
    views, before = [], None
    for at, row in enumerate(board.rows):
        rivals = {"rivals": sizes[row.group], "first": row.group != before}
        command = {"verify": _verify(row.reference, board)}
        views.append({"id": f"entry-{at}", **_view(row), **rivals, **command})
        before = row.group
    return views


def _view(row: Row) -> dict[str, Any]:
    training = row.card.training
    return {
        "row": row,
        "card": row.card,
        "facets": {
            "dataset": row.dataset,
            "threat": str(row.threat),
            "protocol": row.protocol,
            "method": training.method,
            "arch": row.card.arch,
        },
        "text": " ".join(
            [row.reference, row.method, row.card.arch, row.card.description]
        ).lower(),
        "link": _link(row.card.source),
    }


def _link(source: str) -> str | None:
    """The source if it is a web address."""
    return source if urlsplit(source).scheme == "https" else None


def _filter(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "label": LABELS.get(name, name),
        "values": sorted({row["facets"][name] for row in rows}),
    }
