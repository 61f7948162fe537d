"""The leaderboard as text: Markdown, LaTeX, and a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.leaderboard import Board, Row
from zoo.model_card import escape_markdown
from zoo.records import Proportion

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = (
    "rank",
    "encoder",
    "method",
    "architecture",
    "dataset",
    "threat model",
    "protocol",
    "images",
    "clean",
    "robust",
    "attacks",
)
NUMBERS = {"rank", "images", "clean", "robust"}
NOTE = (
    "In brackets: 95% intervals (Clopper-Pearson). '=' marks a rank that is shared: a "
    "paired exact test (McNemar, 5%) does not tell the rows apart."
)
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def cells(row: Row) -> list[str]:
    """One row, in the order of `HEADINGS`."""
    return [
        row.place,
        row.card.name,
        row.card.training.method,
        row.card.arch,
        row.dataset,
        str(row.threat),
        row.protocol,
        str(row.robust.n),
        percent(row.clean),
        percent(row.robust),
        row.battery,
    ]


def percent(figure: Proportion) -> str:
    """Share and interval, in per cent without the sign."""
    low, high = 100 * figure.low, 100 * figure.high
    return f"{100 * figure.value:.1f} [{low:.1f}, {high:.1f}]"


def markdown(board: Board) -> str:
    """A table for README files and issues."""
    rule = ["--:" if heading in NUMBERS else "---" for heading in HEADINGS]
    lines = [list(HEADINGS), rule]
    lines += [[escape_markdown(cell) for cell in cells(row)] for row in board.rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nAccuracies in %. {NOTE}\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))


def latex(board: Board) -> str:
    """A tabular with the rules of the package booktabs."""
    columns = "".join("r" if heading in NUMBERS else "l" for heading in HEADINGS)
    head = " & ".join(HEADINGS)
    body = [" & ".join(map(escape_latex, cells(row))) + r" \\" for row in board.rows]
    return "\n".join(
        [
            f"% {NOTE}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def terminal(board: Board) -> Table:
    """A table for rich."""
    from rich.table import Table

    table = Table(title=f"leaderboard: {board.source}", title_justify="left")
    for heading in ("rank", "encoder", "ranked among", "protocol", "clean", "robust"):
        right = heading in NUMBERS
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in board.rows:
        table.add_row(
            row.place,
            row.card.name,
            row.group,
            row.protocol,
            percent(row.clean),
            percent(row.robust),
        )
    table.caption = f"Accuracies in %. {NOTE}"
    table.caption_justify = "left"
    return table
