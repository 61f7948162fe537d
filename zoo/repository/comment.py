"""What a change adds, as Markdown for a comment beside it.

All text of others is escaped: it can neither format the comment nor break its tables.
"""

from __future__ import annotations

from zoo.board.leaderboard import Board
from zoo.board.text import percent
from zoo.collection.entries import Published
from zoo.judgement import judge, mark
from zoo.records import Proportion
from zoo.repository.checking import Change, New
from zoo.tables import escape_markdown, markdown_table

HEADINGS = ("model", "task", "clean", "robust", "before", "rank", "check")
NUMBERS = frozenset(("clean", "robust", "before", "rank"))
NOTE = (
    "Accuracies in %, in brackets 95% intervals. Before: the newest result of another "
    "revision of the model on the same task.\n"
)


def comment(change: Change, board: Board) -> str:
    """Headline, a table of what is new, and what is wrong.

    Args:
        change: As `zoo.repository.checking.check` found it.
        board: Of the repository with the change, for ranks.
    """
    places = {row.reference: row.place for row in board.rows}
    sizes: dict[str, int] = {}
    for row in board.rows:
        sizes[row.group] = sizes.get(row.group, 0) + row.ranked
    of = {row.reference: sizes[row.group] for row in board.rows}
    tasks = [new for new in change.new if new.published]
    rows = [_cells(new, places, of) for new in tasks]
    parts = [f"### {_headline(change)}\n"]
    if rows:
        parts += [markdown_table(HEADINGS, rows, numbers=set(NUMBERS)), NOTE]
    unheld = (*change.failed, *change.unchecked)
    wrong = [*change.faults, *(f"{n.verdict.item}: {n.verdict.reason}" for n in unheld)]
    if wrong:
        parts.append("".join(f"- {escape_markdown(line)}\n" for line in wrong))
    seconds = sum(new.verdict.seconds for new in change.new)
    parts.append(f"Checked by forward passes alone, in {seconds:.1f} s.\n")
    return "\n".join(parts)


def _headline(change: Change) -> str:
    weights = sum(new.verdict.holds and not new.published for new in change.new)
    held = sum(new.verdict.holds and bool(new.published) for new in change.new)
    words = [
        f"{held} new result{'s' * (held != 1)} hold{'s' * (held == 1)}" if held else "",
        f"{weights} new encoder{'s' * (weights != 1)}" if weights else "",
        f"{len(change.failed)} do not hold" if change.failed else "",
        f"{len(change.unchecked)} not checked" if change.unchecked else "",
        f"{len(change.faults)} out of place" if change.faults else "",
    ]
    return ", ".join(filter(None, words)) or "No new result"


def _cells(new: New, places: dict[str, str], of: dict[str, int]) -> list[str]:
    assert new.published is not None
    published, result = new.published, new.published.result
    rank = places.get(published.reference, "-")
    check = "not checked" if new.verdict.unchecked else "FAILS"
    return [
        f"{new.folder.parent.parent.name} {new.folder.parent.name}",
        _task(published),
        percent(result.clean),
        f"{percent(result.robust)}{mark(judge(result.measurements.health))}",
        _before(new.before, result.robust),
        rank if rank == "-" else f"{rank} of {of[published.reference]}",
        "holds" if new.verdict.holds else check,
    ]


def _task(published: Published) -> str:
    data = published.result.dataset
    split = "" if data.split == "test" else f"/{data.split}"
    words = [f"{data.name}{split}", str(published.result.threat), published.protocol]
    return ", ".join([*words, published.battery])


def _before(before: Published | None, now: Proportion) -> str:
    if before is None:
        return "-"
    was = before.result.robust
    return f"{100 * was.value:.1f} ({100 * (now.value - was.value):+.1f})"
