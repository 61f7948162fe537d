"""The table of several evaluations: a record, and what it looks like as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zoo.board.text import percent
from zoo.datasets import is_per_class
from zoo.errors import UserError
from zoo.files import write_text
from zoo.judgement import Judgement, doubts, judge, mark
from zoo.records import PerClass, Proportion, Record, Result, read_record, write_record
from zoo.tables import escape_markdown, latex_table, markdown_table
from zoo.threat import ThreatModel
from zoo.writable import check_writable

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
PER_CLASS = ("clean per class", "robust per class")
NUMBERS = frozenset(("images", "clean", "robust", *PER_CLASS))


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
    robust: Proportion | None
    """Null if nothing was attacked."""
    per_class: PerClass | None
    undecided: int
    doubts: list[str] | None
    """Health checks that did not pass; null if none ran."""
    judgement: Judgement = Judgement.UNCHECKED
    """What they make of the evaluation."""
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
            robust=result.robust if result.attacks else None,
            per_class=result.per_class,
            undecided=result.undecided,
            doubts=doubts(result.measurements.health),
            judgement=judge(result.measurements.health),
            seconds=result.seconds["total"],
            folder=folder,
        )

    def cells(self, headings: Sequence[str] = HEADINGS) -> list[str]:
        """In the order of `headings`; per class where the field states that."""
        means = self.per_class if is_per_class(self.dataset) else None
        robust = f"{percent(self.robust)}{mark(self.judgement)}" if self.robust else "-"
        found = {
            "model": self.model,
            "dataset": self.dataset,
            "images": str(self.n),
            "threat": str(self.threat),
            "probe": f"{self.protocol} on {self.train_n}" if self.protocol else "-",
            "clean": percent(self.clean),
            "robust": robust,
            PER_CLASS[0]: f"{100 * means.clean:.1f}" if means else "-",
            PER_CLASS[1]: f"{100 * means.robust:.1f}" if means and self.robust else "-",
        }
        return [found[heading] for heading in headings]


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


def counted(count: int, missing: int) -> str:
    """Evaluations that a table holds, and of how many if it does not hold all yet."""
    if not missing:
        return f"{count} evaluations"
    return f"{count} of {count + missing} evaluations, the same command goes on"


class Summary(Record):
    """Several evaluations with one battery, in the order they were asked for."""

    schema_version: Literal[1] = 1
    battery: str
    engine: str
    rows: list[SummaryRow]
    failed: list[Failure]
    missing: int = 0
    """Evaluations that had not run when this was written."""

    @property
    def title(self) -> str:
        """What the rows share."""
        count = len(self.rows) + len(self.failed)
        failed = f", {len(self.failed)} failed" if self.failed else ""
        told = counted(count, self.missing)
        return f"{told}{failed}: {self.battery}, engine {self.engine}"

    @property
    def headings(self) -> tuple[str, ...]:
        """Of the table: with averages over classes where the field states them."""
        more = any(is_per_class(row.dataset) for row in self.rows)
        return HEADINGS + PER_CLASS * more

    def to_markdown(self) -> str:
        """A table; what failed stands below it."""
        table = markdown_table(
            self.headings,
            [row.cells(self.headings) for row in self.rows],
            numbers=NUMBERS,
        )
        failed = [f"- failed: {escape_markdown(one)}\n" for one in self.failed]
        parts = [f"{escape_markdown(self.title)}\n", table, "".join(failed), NOTE]
        return "\n".join(filter(None, parts)) + "\n"

    def to_latex(self) -> str:
        """A tabular with the rules of booktabs; what failed is a comment below it."""
        rows = {"": [row.cells(self.headings) for row in self.rows]}
        note = " ".join(f"{self.title}. {NOTE}".split())
        table = latex_table(self.headings, rows, numbers=NUMBERS, note=note)
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
            flat = row.model_dump(exclude={"threat", "clean", "robust", "per_class"})
            flat |= {"norm": row.threat.norm, "eps": row.threat.eps}
            if row.per_class is not None:
                flat |= {"clean_per_class": row.per_class.clean}
                flat |= {"robust_per_class": row.per_class.robust}
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
    """Before a summary is written, or the work that it tells of is done.

    Raises:
        UserError: another ending, a folder that cannot be written, or a file that is no
            summary of ours.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"a summary is written as {', '.join(SUFFIXES)}; '{path}' ends otherwise"
        )
    check_writable(path.parent, "choose another place")
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
