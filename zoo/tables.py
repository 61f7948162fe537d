"""Tables as Markdown and as LaTeX, in which text of other people stays text."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def escape_markdown(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    plain = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", plain)


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))


def markdown_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[str]
) -> str:
    """A table, its columns in `numbers` flush right."""
    lines = [list(headings)]
    lines += [["--:" if heading in numbers else "---" for heading in headings]]
    lines += [[escape_markdown(cell) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex_table(
    headings: Sequence[str],
    sections: Mapping[str, Sequence[Sequence[str]]],
    *,
    numbers: Collection[str],
    note: str,
) -> str:
    """A tabular with the rules of the package booktabs.

    Args:
        headings: Of the columns.
        sections: Rows by the title above them; no title where it is "".
        numbers: Headings of columns that are flush right.
        note: One line, a comment above the table.
    """
    columns = "".join("r" if heading in numbers else "l" for heading in headings)
    lines = [f"% {note}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines.append(rf"{' & '.join(map(escape_latex, headings))} \\")
    for title, rows in sections.items():
        lines.append(r"\midrule")
        if title:
            span = rf"\multicolumn{{{len(headings)}}}{{l}}"
            lines += [rf"{span}{{{escape_latex(title)}}} \\", r"\midrule"]
        lines += [" & ".join(map(escape_latex, row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
