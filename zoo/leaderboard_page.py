"""The leaderboard as one self-contained HTML page: no network, no foreign script.

All text of cards is escaped by the template, nothing of it reaches the script, and the
page's own policy allows only the one style and the one script that it carries.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zoo._version import __version__
from zoo.leaderboard import Board, Row
from zoo.scatter import Plot, scatter

if TYPE_CHECKING:
    import jinja2

PAGES = Path(__file__).parent / "pages"
FILTERS = ("dataset", "threat", "protocol", "method", "arch")
LABELS = {"threat": "threat model", "arch": "architecture"}


def page(board: Board, title: str = "Robust encoders") -> str:
    """The whole page as text.

    Args:
        board: What to show.
        title: Heading of the page.
    """
    style = (PAGES / "leaderboard.css").read_text(encoding="utf-8")
    script = (PAGES / "leaderboard.js").read_text(encoding="utf-8")
    rows = [_view(row, at) for at, row in enumerate(board.rows)]
    plot: Plot = scatter(board.rows)
    return (
        _environment()
        .get_template("leaderboard.html.j2")
        .render(
            title=title,
            board=board,
            rows=rows,
            plot=plot,
            filters=[_filter(name, rows) for name in FILTERS],
            version=__version__,
            style=style,
            script=script,
            policy=_policy(style, script),
        )
    )


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    return environment


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy: this style, this script, nothing else."""
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(raw).decode()}"


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
