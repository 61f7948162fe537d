"""The leaderboard as text: Markdown, LaTeX, and tables for the terminal.

One section per group of comparable rows, so that lines stay short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.board.leaderboard import Board, Row
from zoo.judgement import word_beside
from zoo.records import Proportion
from zoo.tables import escape_markdown, latex_table, markdown_table

if TYPE_CHECKING:
    from rich.console import Group

HEADINGS = (
    "rank",
    "encoder",
    "method",
    "architecture",
    "images",
    "clean",
    "robust",
)
FIGURES = ("clean", "robust")
WORST = "worst"
"""A column of its own, where any row has the figure."""
NUMBERS = {"rank", "images", *FIGURES, WORST}
WIDEST = 26
"""Characters of a column in the terminal, before it is folded."""
NOTE = (
    "In brackets: 95% intervals (Clopper-Pearson). '3 to 5': two rows are shown to be "
    "more robust, and paired exact tests (McNemar, 5%) do not tell two others apart "
    "from this one. '-': not ranked, for its attacks or images cannot be compared, or "
    "a health check of its evaluation warned ('doubtful') or failed ('broken'). "
    "'not checked': no health check ran."
)
WORST_NOTE = (
    f" '{WORST}': the worst case known, robust accuracy under all that was tried, "
    "where that was more than the battery."
)


def headings(board: Board) -> tuple[str, ...]:
    """Of the columns; those of which no row has anything are left out."""
    return (*HEADINGS, WORST) if any(row.worst for row in board.rows) else HEADINGS


def note(board: Board) -> str:
    """What stands below all tables."""
    return NOTE + (WORST_NOTE if WORST in headings(board) else "")


def sections(board: Board) -> dict[str, list[Row]]:
    """Rows that are ranked among one another, by what they share."""
    found: dict[str, list[Row]] = {}
    for row in board.rows:
        found.setdefault(row.group, []).append(row)
    return found


def cells(row: Row, headings: tuple[str, ...] = HEADINGS) -> list[str]:
    """One row, in the order of the headings."""
    found = [
        row.place,
        row.card.name,
        row.method,
        row.card.arch,
        str(row.robust.n),
        percent(row.clean),
        f"{percent(row.robust)}{word_beside(row.judgement)}",
        f"{100 * row.worst.value:.1f}" if row.worst else "",
    ]
    return found[: len(headings)]


def percent(figure: Proportion) -> str:
    """Share and interval, in per cent without the sign."""
    low, high = 100 * figure.low, 100 * figure.high
    return f"{100 * figure.value:.1f} [{low:.1f}, {high:.1f}]"


def markdown(board: Board) -> str:
    """A heading and a table per section, for README files and issues."""
    parts, names = [], headings(board)
    for title, rows in sections(board).items():
        lines = [cells(row, names) for row in rows]
        table = markdown_table(names, lines, numbers=NUMBERS)
        parts.append(f"### {escape_markdown(title)}\n\n{table}")
    return "\n".join([*parts, f"Accuracies in %. {note(board)}\n"])


def latex(board: Board) -> str:
    """A tabular with the rules of the package booktabs, in sections."""
    names = headings(board)
    rows = {
        title: [cells(row, names) for row in own]
        for title, own in sections(board).items()
    }
    return latex_table(names, rows, numbers=NUMBERS, note=note(board))


def terminal(board: Board) -> Group:
    """Tables for rich, one per section, with columns of one width; 80 characters do."""
    from rich.console import Group

    from zoo.commands.options import plain_table
    from zoo.plain_text import plain

    names = headings(board)
    wanted = ("rank", "encoder", *FIGURES, WORST)
    shown = [names.index(name) for name in wanted if name in names]
    lines = [cells(row, names) for row in board.rows]
    tables = []
    for title, rows in sections(board).items():
        table = plain_table(title)
        for at in shown:
            number = names[at] in NUMBERS
            # Doubts go to a second line where there is no room for them.
            widest = max(len(line[at].rpartition("]")[0] or line[at]) for line in lines)
            table.add_column(
                names[at],
                justify="right" if number else "left",
                overflow="fold",
                min_width=min(WIDEST, widest),
            )
        for row in rows:
            line = cells(row, names)
            table.add_row(*(plain(line[at]) for at in shown))
        tables.append(table)
    return Group(
        f"leaderboard: {board.source}", *tables, f"Accuracies in %. {note(board)}"
    )
