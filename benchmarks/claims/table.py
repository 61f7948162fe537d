"""All claims as tables."""

from __future__ import annotations

from benchmarks.claims import entries, suites
from benchmarks.claims.verdict import HEADINGS, NUMBERS
from zoo.tables import markdown_table

KINDS = {"claims": entries.rows, "suites": suites.rows}
"""Rows by the mark that stands before their table in docs/results/tests.md."""


def markdown(kind: str) -> str:
    """The table of "claims" (of entries) or "suites", without empty columns."""
    rows = list(KINDS[kind]())
    kept = [at for at in range(len(HEADINGS)) if any(row[at] for row in rows)]
    return markdown_table(
        [HEADINGS[at] for at in kept],
        [[row[at] for at in kept] for row in rows],
        numbers=set(NUMBERS),
    )


def text() -> str:
    """All of them, a line each."""
    return "\n".join(
        f"{holds:9}  {interval:22}  p {p_value or '-':6}  {units:42}  {claim}"
        for rows in KINDS.values()
        for claim, interval, p_value, units, holds in rows()
    )
