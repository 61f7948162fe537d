"""The leaderboard as one self-contained HTML page: no network, no foreign script."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from zoo.html_page import render
from zoo.leaderboard import Board, Row
from zoo.scatter import Plot, scatter

FILTERS = ("dataset", "threat", "protocol", "method", "arch")
LABELS = {"threat": "threat model", "arch": "architecture"}


def page(board: Board, title: str = "Robust encoders") -> str:
    """The whole page as text.

    Args:
        board: What to show.
        title: Heading of the page.
    """
    rows = [_view(row, at) for at, row in enumerate(board.rows)]
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
    )


def _view(row: Row, at: int) -> dict[str, Any]:
    """A row as the template wants it."""
    training = row.card.training
    return {
        "id": f"entry-{at}",
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
            [row.reference, training.method, row.card.arch, row.card.description]
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
