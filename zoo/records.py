"""Typed, versioned records: card, result and their parts. Imports no torch.

Numbers are numbers, accuracies lie in [0, 1] with their count and interval, and what
is absent is null, never 0. A later version of robrep reads older records or says
that it cannot.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zoo.errors import UserError
from zoo.files import read_json, write_json
from zoo.threat import ThreatModel

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=96)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]
"""Of a file beside the record: never a path that leads elsewhere."""
WEIGHTS = "model.safetensors"
"""In the folder of an encoder."""
Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(gt=0, le=2**31)]
Count = Annotated[int, Field(ge=0, le=2**31)]
Label = Annotated[int, Field(ge=0, le=2**20)]


class Record(BaseModel):
    """Base of all records: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Proportion(Record):
    """k of n with the exact 95% interval (Clopper & Pearson 1934)."""

    value: Share
    k: Count
    n: Size
    low: Share
    high: Share

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.low <= self.value == self.k / self.n <= self.high:
            raise ValueError(
                f"{self.value} is not {self.k} of {self.n} in [{self.low}, {self.high}]"
            )
        return self

    @classmethod
    def of(cls, k: int, n: int) -> Self:
        """Counts to a share with its interval; n must be positive."""
        from scipy.stats import beta

        if not 0 <= k <= n or n == 0:
            raise ValueError(
                f"a proportion needs 0 <= k <= n and n > 0, not {k} of {n}"
            )
        low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
        high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
        return cls(value=k / n, k=k, n=n, low=low, high=high)

    def __str__(self) -> str:
        return f"{100 * self.value:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"


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

    index: list[Count]
    """Position in the published split."""
    label: list[Label]
    clean_prediction: list[Annotated[int, Field(ge=-1, le=2**20)]]
    verdict: list[Verdict]
    outcomes: dict[str, list[Outcome]]
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
    """"SLF": standard linear probe on frozen features. "ALF": the same head, trained on
    adversarial images. "AFF": encoder and head, trained on adversarial images."""
    parameters: dict[str, Any]
    train: str
    """Dataset and split it was fitted on."""
    train_n: int
    labels: str | None = None
    """Part of the training split whose labels were used, e.g. "10%"; null for all."""
    train_accuracy: float
    validation_accuracy: float | None
    """On held-out training images; for ALF and AFF under PGD."""
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


class Evidence(Record):
    """The adversarials that stand behind the figure."""

    file: FileName
    file_sha256: Sha256
    count: Count
    tolerance: float
    """Slack over eps that the re-check allows, for float32 rounding."""


class Provenance(Record):
    """Where and when a result came from."""

    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    robrep: str
    revision: str | None = None
    """Commit of the source tree, if it ran from one."""
    versions: dict[str, str]
    device: str
    threads: int
    command: list[str] = Field(default_factory=list)


class Result(Record):
    """One evaluation of one classifier under one threat model."""

    schema_version: Literal[1] = 1
    model: ModelRecord
    probe: ProbeRecord | None
    dataset: DatasetRecord
    threat: ThreatModel
    battery: str
    engine: str
    chunk_size: int
    """Examples per chunk: AutoAttack's verdicts depend on it in the reference."""
    seed: int
    clean: Proportion
    robust: Proportion
    """Correct and not fooled by any attack: the figure."""
    undecided: int
    attacks: list[AttackRun]
    examples: Examples
    evidence: Evidence
    seconds: dict[str, float]
    provenance: Provenance
    notes: list[str] = Field(default_factory=list)
    extras: dict[str, Any] = Field(default_factory=dict)
    """Further measurements, each under its own name."""


R = TypeVar("R", bound=Record)


def read_record(path: Path, kind: type[R]) -> R:
    """Reads and validates a record.

    Raises:
        UserError: missing, not JSON, of another schema version, or a wrong field,
            which is named.
    """
    return validated(read_json(path), kind, str(path))


def validated(content: object, kind: type[R], name: str) -> R:
    """The record that `content` is; raises `UserError` as `read_record` does.

    Args:
        content: Parsed JSON.
        kind: Of record.
        name: What to call it in the message.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if "schema_version" in kind.model_fields and version != 1:
        raise UserError(
            f"{name} has schema version {version}; this robrep reads version 1"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
        reason = ": ".join(filter(None, (where, first["msg"])))
        raise UserError(f"{name} is not a valid {what}: {reason}") from None


def write_record(path: Path, record: Record) -> None:
    """Writes a record as JSON, atomically."""
    write_json(path, record.model_dump(mode="json"))
