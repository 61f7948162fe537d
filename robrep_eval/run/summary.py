"""The table of several evaluations: a record, and what it looks like as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo.board.leaderboard import doubts
from zoo.board.text import DOUBT, percent
from zoo.errors import UserError
from zoo.files import write_text
from zoo.records import Proportion, Record, Result, read_record, write_record
from zoo.tables import escape_markdown, latex_table, markdown_table
from zoo.threat import ThreatModel

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".json", ".md", ".tex")
MARKS = {
    ".md": "<!-- Summary of robrep-eval -->\n",
    ".tex": "% Summary of robrep-eval\n",
}
"""First line of a summary as text: no other file is replaced by one."""
NOTE = "Accuracies in %, in brackets 95% intervals (Clopper-Pearson)."
HEADINGS = ("model", "dataset", "images", "threat", "probe", "clean", "robust")
NUMBERS = frozenset(("images", "clean", "robust"))


class SummaryRow(Record):
    """One evaluation."""

    model: str
    dataset: str
    split: str
    n: int
    threat: ThreatModel
    protocol: str | None
    """Of the probe; null for a ready-made classifier."""
    labels: str | None
    """Part of the training labels that the probe used; null for all."""
    train_n: int | None
    clean: Proportion
    robust: Proportion
    undecided: int
    doubts: list[str] | None
    """Failed health checks; null if none ran."""
    seconds: float
    folder: str | None
    """Run folder, relative to summary.json where it lies below it."""

    @classmethod
    def of(cls, result: Result, folder: str | None) -> SummaryRow:
        """From the result of one evaluation."""
        probe = result.probe
        return cls(
            model=result.model.reference,
            dataset=result.dataset.name,
            split=result.dataset.split,
            n=result.dataset.n,
            threat=result.threat,
            protocol=probe.protocol if probe else None,
            labels=probe.labels if probe else None,
            train_n=probe.train_n if probe else None,
            clean=result.clean,
            robust=result.robust,
            undecided=result.undecided,
            doubts=doubts(result),
            seconds=result.seconds["total"],
            folder=folder,
        )

    def cells(self) -> list[str]:
        """In the order of `HEADINGS`."""
        return [
            self.model,
            self.dataset,
            str(self.n),
            str(self.threat),
            f"{self.protocol} on {self.train_n}" if self.protocol else "-",
            percent(self.clean),
            f"{percent(self.robust)}{DOUBT if self.doubts else ''}",
        ]


class Failure(Record):
    """One evaluation that came to no result; values as they were asked for."""

    model: str
    dataset: str | None
    eps: str | None
    probe: str
    error: str

    def __str__(self) -> str:
        asked = [self.model, self.dataset, self.eps and f"eps {self.eps}", self.probe]
        return f"{', '.join(filter(None, asked))}: {self.error}"


class Summary(Record):
    """Several evaluations with one battery, in the order they were asked for."""

    schema_version: Literal[1] = 1
    battery: str
    engine: str
    rows: list[SummaryRow]
    failed: list[Failure]

    @property
    def title(self) -> str:
        """What the rows share."""
        count = len(self.rows) + len(self.failed)
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{count} evaluations{failed}: {self.battery}, engine {self.engine}"

    def to_markdown(self) -> str:
        """A table; what failed stands below it."""
        table = markdown_table(
            HEADINGS, [row.cells() for row in self.rows], numbers=NUMBERS
        )
        failed = [f"- failed: {escape_markdown(one)}\n" for one in self.failed]
        parts = [f"{escape_markdown(self.title)}\n", table, "".join(failed), NOTE]
        return "\n".join(filter(None, parts)) + "\n"

    def to_latex(self) -> str:
        """A tabular with the rules of booktabs; what failed is a comment below it."""
        rows = {"": [row.cells() for row in self.rows]}
        note = " ".join(f"{self.title}. {NOTE}".split())
        table = latex_table(HEADINGS, rows, numbers=NUMBERS, note=note)
        failed = [f"% failed: {' '.join(str(one).split())}\n" for one in self.failed]
        return "".join([table, *failed])

    _repr_markdown_ = to_markdown

    def to_pandas(self) -> pandas.DataFrame:
        """One row per evaluation, shares in [0, 1].

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("to_pandas needs pandas: pip install pandas") from None
        rows = []
        for row in self.rows:
            flat = row.model_dump(exclude={"threat", "clean", "robust"})
            flat |= {"norm": row.threat.norm, "eps": row.threat.eps}
            for name in ("clean", "robust"):
                share: Proportion = getattr(row, name)
                flat |= {f"{name}": share.value}
                flat |= {f"{name}_low": share.low, f"{name}_high": share.high}
            rows.append(flat)
        return pandas.DataFrame(rows)

    def save(self, path: str | Path) -> Path:
        """Writes the table as JSON, Markdown or LaTeX, by the file's ending.

        Raises:
            UserError: see `check_place`.
        """
        path = Path(path)
        check_place(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            write_record(path, self)
        else:
            text = self.to_markdown() if path.suffix == ".md" else self.to_latex()
            write_text(path, MARKS[path.suffix] + text)
        return path


def check_place(path: Path) -> None:
    """Raises `UserError` for another ending, or a file that is no summary of ours."""
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"a summary is written as {', '.join(SUFFIXES)}; '{path}' ends otherwise"
        )
    if not path.exists():
        return
    try:
        if path.suffix == ".json":
            read_record(path, Summary)
            return
        with path.open(encoding="utf-8") as file:
            ours = file.readline() == MARKS[path.suffix]
    except (UserError, OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise UserError(
            f"{path} is there already and is no summary of robrep's; choose another "
            "place"
        )
