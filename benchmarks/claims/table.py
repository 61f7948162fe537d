"""All claims as tables."""

from __future__ import annotations

from benchmarks.claims import entries, suites
from benchmarks.claims.verdict import HEADINGS, NUMBERS
from zoo.tables import markdown_table


def markdown() -> str:
    """Of entries, then of suites."""
    parts = (entries.rows(), suites.rows())
    return "\n".join(
        markdown_table(HEADINGS, rows, numbers=set(NUMBERS)) for rows in parts if rows
    )


def text() -> str:
    """The same, a line each."""
    return "\n".join(
        f"{holds:9}  {interval:22}  p {p_value or '-':6}  {units:24}  {claim}"
        for claim, interval, p_value, units, holds in (*entries.rows(), *suites.rows())
    )
