"""Typed, versioned records: card, result and their parts. Imports no torch.

What records share is in `zoo.schema`, how a result lies in files in
`zoo.result_file`. One file in spite of its length: a result is read with its parts
beside it, and each part is a few fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from zoo.errors import UserError
from zoo.extras import how_to_get
from zoo.judgement import judge
from zoo.measurements import Measured, Measurements
from zoo.moments import Moment
from zoo.result_writer import RESULT, write_result
from zoo.schema import (
    Column,
    Count,
    FileName,
    Label,
    Name,
    Proportion,
    Record,
    Sha256,
    Share,
    Size,
    Version,
    read_record,
    validated,
    write_record,
)
from zoo.threat import ThreatModel

if TYPE_CHECKING:
    import pandas

__all__ = [
    "WEIGHTS",
    "AttackRun",
    "Audit",
    "Card",
    "Count",
    "DatasetRecord",
    "Evidence",
    "Examples",
    "FileName",
    "Label",
    "ModelRecord",
    "Name",
    "Outcome",
    "PerClass",
    "ProbeRecord",
    "Proportion",
    "Provenance",
    "Record",
    "Result",
    "Sha256",
    "Size",
    "TaskVersion",
    "Training",
    "Verdict",
    "read_record",
    "validated",
    "write_record",
]

WEIGHTS = "model.safetensors"
"""In the folder of an encoder."""


class Training(Record):
    """How an encoder was made."""

    method: str
    """Name of the objective, e.g. "tarrl"; "unknown" for strangers."""
    dataset: str
    threat: ThreatModel | None = None
    """What the adversary could do in training; None for clean methods."""
    labels: bool = False
    """True if labels were used (supervised references)."""
    extra_data: bool = False
    """True if real data beyond the dataset were used."""
    command: str | None = None
    """Reproduces the encoder from nothing."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Every setting in force."""
    seed: int | None = None
    epochs: int | None = None
    passes: float | None = None
    """Cost in forward equivalents per run (methods differ in passes per epoch)."""
    seconds: float | None = None
    versions: dict[str, str] = Field(default_factory=dict)


class Card(Record):
    """What the zoo says about one encoder."""

    schema_version: Literal[1] = 1
    name: Name
    description: str
    arch: str
    shape: tuple[Size, Size, Size]
    dim: Size
    training: Training
    weights: FileName = WEIGHTS
    """File beside the card."""
    sha256: Sha256
    """Of that file."""
    licence: str
    source: str = "robrep"
    """Paper, authors' repository, or "robrep"."""
    robustbench_id: str | None = None
    notes: str = ""


class Outcome(StrEnum):
    """What one attack came to on one example."""

    FOOLED = "fooled"
    """An adversarial passed every check."""
    HELD = "held"
    """The attack proposed nothing that the classifier gets wrong."""
    REFUSED = "refused"
    """A proposal failed a check (ball, box, not finite): it does not count."""
    UNDECIDED = "undecided"
    """Fresh passes disagree or are not finite: counted apart."""
    SKIPPED = "skipped"
    """Not attacked: misclassified when clean, or fooled earlier in the sequence."""


class Verdict(StrEnum):
    """What the whole battery came to on one example."""

    ROBUST = "robust"
    FOOLED = "fooled"
    MISCLASSIFIED = "misclassified"
    """Wrong without any attack."""
    UNDECIDED = "undecided"
    """Neither claim could be checked; counts as not robust."""


class AttackRun(Record):
    """One attack of the battery."""

    name: str
    engine: str
    """Whose code ran: "robrep", "pyautoattack 0.2.0", "art 1.20.1"."""
    sequence: bool
    """True: ran on the survivors of the attacks before it, as AutoAttack does."""
    parameters: dict[str, Any]
    attempted: int
    fooled: int
    refused: int
    undecided: int
    robust: Proportion
    """Correct and not fooled so far: by this attack alone, or, in a sequence, by it
    and those before it."""
    seconds: float
    notes: list[str] = Field(default_factory=list)


class Examples(Record):
    """One row per example, stored as columns of equal length."""

    index: Annotated[list[Count], Column.INTEGER]
    """Position in the published split."""
    label: Annotated[list[Label], Column.INTEGER]
    clean_prediction: Annotated[
        list[Annotated[int, Field(ge=-1, le=2**20)]], Column.INTEGER
    ]
    """-1: undecided."""
    verdict: Annotated[list[Verdict], Column.CODE]
    outcomes: Annotated[dict[str, list[Outcome]], Column.CODE] = Field(
        default_factory=dict
    )
    """By attack name."""

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        lengths = {len(self.index), len(self.label), len(self.clean_prediction)}
        lengths |= {len(self.verdict), *map(len, self.outcomes.values())}
        if len(lengths) > 1:
            raise ValueError("the columns of examples differ in length")
        return self


class ModelRecord(Record):
    """Which classifier was evaluated."""

    reference: str
    """As given to --model."""
    arch: str
    parameters: Count
    weights_sha256: Sha256
    """Over all weights of encoder and head (`zoo.encoder.fingerprint`)."""
    file: FileName
    """The classifier, saved beside the result."""
    file_sha256: Sha256
    training: Training | None = None


class ProbeRecord(Record):
    """How the head was fitted; absent for ready-made classifiers."""

    protocol: str
    """"SLF": standard linear probe on frozen features. "SLF-R": the same, its penalty
    chosen under attack. "ALF": such a head, trained on adversarial images. "AFF":
    encoder and head, trained on adversarial images."""
    parameters: dict[str, Any]
    train: str
    """Dataset and split it was fitted on."""
    train_n: int
    labels: str | None = None
    """Part of the training split whose labels were used, e.g. "10%"; null for all."""
    train_accuracy: float
    validation_accuracy: float | None
    """On held-out training images; for SLF-R, ALF and AFF under PGD."""
    knn_accuracy: float | None
    """k-NN on the same features and test points, as a sanity figure."""
    seconds: float


class DatasetRecord(Record):
    """Which images were evaluated."""

    name: str
    split: str
    n: Size
    sha256: Sha256
    """Over the evaluated images and labels, in order."""
    classes: Annotated[int, Field(gt=0, le=2**20)]
    shape: tuple[Size, Size, Size]


class Audit(Record):
    """A sample of the images that a battery left, attacked by a stronger one."""

    attacks: list[Name]
    """Of `Result.attacks`, those on the sample; the others were on all images."""
    seed: Count
    """By which the sample was drawn; that of the run."""
    standing: Count
    """Images that the others left."""
    drawn: Count
    """Of those, without replacement."""
    fell: Count
    """Of the sample; undecided ones count."""
    robust_low: Count
    robust_high: Count
    """Exact 95% interval of how many images stand under both batteries, had the
    stronger one attacked all that are left."""


class TaskVersion(Record):
    """Of what a figure is: each number grows when the same words would give another
    one. See `zoo.task_version`."""

    dataset: Version | None
    """Of how images and labels are read; null for people's own images, of which
    `DatasetRecord.sha256` says all."""
    probe: Version | None
    """Of the protocol by which the head is fitted; null for ready-made classifiers."""


class PerClass(Record):
    """Averages over classes of the accuracy within each, of classes with images."""

    clean: Share
    robust: Share
    classes: Size


class Evidence(Record):
    """The adversarials that stand behind the figure."""

    file: FileName
    file_sha256: Sha256
    count: Count
    tolerance: float
    """Slack over eps that the re-check allows, for float32 rounding."""


class Provenance(Record):
    """Where and when a result came from."""

    created: Moment = Field(default_factory=lambda: datetime.now(UTC))
    robrep: str
    revision: str | None = None
    """Commit of the source tree, if it ran from one; "+": with changes."""
    versions: dict[str, str]
    device: str
    threads: int
    command: list[str] = Field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether the sources held changes that were not committed."""
        return (self.revision or "").endswith("+")


class Result(Record):
    """One evaluation of one classifier under one threat model."""

    schema_version: Literal[2] = 2
    model: ModelRecord
    dataset: DatasetRecord
    threat: ThreatModel
    probe: ProbeRecord | None
    battery: str
    engine: str
    chunk_size: int
    """Examples per chunk: AutoAttack's verdicts depend on it in the reference."""
    seed: int
    clean: Proportion
    robust: Proportion
    """Correct and not fooled by any attack: the figure."""
    per_class: PerClass | None = None
    """The same as averages over classes; null in records of the first robrep."""
    task: TaskVersion | None = None
    """Null in records before robrep 0.2: the first version of everything."""
    undecided: int
    notes: list[str] = Field(default_factory=list)
    measurements: Measurements = Field(default_factory=Measurements)
    """What was measured beside the attacks, health checks first."""
    attacks: list[AttackRun]
    audit: Audit | None = None
    examples: Examples
    evidence: Evidence
    seconds: dict[str, float]
    provenance: Provenance

    @property
    def engines(self) -> str:
        """Whose code ran, each once: "robrep 0.2.0 (official-rng), art 1.20.1", "none".

        `engine` says which AutoAttack was asked for, also where none of it ran.
        """
        drawn = f" {self.engine.partition(' ')[2]}".rstrip()
        words = (
            run.engine + (drawn if run.engine.startswith("robrep ") else "")
            for run in self.attacks
        )
        return ", ".join(dict.fromkeys(words)) or "none"

    def __repr__(self) -> str:
        audit = self.audit
        words = [f"clean {self.clean}"]
        words += [f"robust {self.robust}"] if self.attacks else ["nothing attacked"]
        if audit:
            words.append(f"audit: robust {audit.robust_low} to {audit.robust_high}")
        words.append(str(judge(self.measurements.health)))
        return (
            f"<Result: {self.model.reference} on {self.dataset.name}/"
            f"{self.dataset.split} (n={self.dataset.n}), {self.threat}, "
            f"{self.battery}: {', '.join(words)}>"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """A small table, for notebooks."""
        title = escape(f"{self.model.reference} on {self.dataset.name}, {self.threat}")
        rows = [("clean", self.clean)]
        rows += [("robust", self.robust)] if self.attacks else []
        rows += [(run.name, run.robust) for run in self.attacks]
        cells = "".join(
            f"<tr><td>{escape(name)}</td><td>{share}</td></tr>" for name, share in rows
        )
        return f"<table><caption>{title}</caption>{cells}</table>"

    def to_pandas(self) -> pandas.DataFrame:
        """One row per image: index, label, clean_prediction, verdict, each attack.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError(f"to_pandas needs pandas: {how_to_get('pandas')}") from None
        examples = self.examples
        columns = {
            "index": examples.index,
            "label": examples.label,
            "clean_prediction": examples.clean_prediction,
            "verdict": [str(v) for v in examples.verdict],
        }
        outcomes = {k: [str(o) for o in v] for k, v in examples.outcomes.items()}
        return pandas.DataFrame(columns | outcomes)

    def save(self, folder: str | Path) -> Path:
        """Writes the record alone, result.json and its columns, into a folder.

        What `verify_folder` needs beside it is kept by `evaluate(..., output=FOLDER)`.

        Returns:
            The path of result.json.

        Raises:
            UserError: the folder holds another result, or cannot be written.
        """
        folder = Path(folder)
        path = folder / RESULT
        if path.exists():
            raise UserError(f"{path} is there already; choose another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_result(folder, self)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}") from None
        return path

    @model_validator(mode="after")
    def _one_row_per_example(self) -> Self:
        """Measurements have a row for each example, or for the first of them."""
        count, measured = len(self.examples.index), self.measurements
        if measured.lipschitz and len(measured.lipschitz.radius) != count:
            raise ValueError("lipschitz.radius has not one value per example")
        columns = measured.bound.examples.values() if measured.bound else ()
        if any(len(column) > count for column in columns):
            raise ValueError("bound.examples has more values than there are examples")
        return self


def with_measurements(result: Result, found: Mapping[str, Measured]) -> Result:
    """The result with these measurements in place of its own of the same names."""
    known = {k: v for k, v in found.items() if k in Measurements.model_fields}
    others = {
        name: record.model_dump(mode="json", exclude_none=True)
        for name, record in found.items()
        if name not in known
    }
    before = result.measurements
    after = before.model_copy(update={**known, "others": {**before.others, **others}})
    return result.model_copy(update={"measurements": after})
