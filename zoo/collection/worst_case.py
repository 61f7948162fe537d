"""The worst case known of an entry: what was found beyond its own battery.

An entry's figure is that of its battery, so that it compares with the literature, and a
published entry never changes. Whoever fools an image that it calls robust adds the
adversarial in two files beside it: a record, and perturbations packed as the entry's
own are. They may grow; forward passes check them as they check the entry. The record
imports no torch.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from zoo.collection.index import ENTRIES, EncoderRow, FileRecord
from zoo.collection.sources import Source
from zoo.errors import VerificationError
from zoo.records import Count, Name, Proportion, Record, Result, Verdict, read_record
from zoo.recount import agree, holds

if TYPE_CHECKING:
    from zoo.datasets.base import Dataset
    from zoo.evidence_file import Claims

WORST = re.compile(r"worst(-[0-9a-f]{8})?\.json")
WORST_DELTAS = re.compile(r"worst(-[0-9a-f]{8})?\.safetensors")
"""Names of the two files: by their content, so that new ones never take the place of
those that an index names; the first ones had none."""
MOST = 255
"""Batteries of a worst case."""


class WorstCase(Record):
    """What an entry's images withstand of everything that was tried on them."""

    schema_version: Literal[1] = 1
    encoder: Name
    entry: Name
    batteries: Annotated[list[str], Field(min_length=1, max_length=MOST)]
    """What was tried beyond the entry's own battery; an adversarial names one by its
    place here."""
    tried: list[Count] | None = None
    """On how many of the images that the entry calls robust, at least, for each
    battery; null in records that do not say."""
    robust: Proportion
    """Of the entry's images, under its own battery and these together."""
    fallen: list[Count]
    """Positions in the split of those that fell to these alone, ascending."""
    deltas: FileRecord

    @model_validator(mode="after")
    def _one_count_each(self) -> Self:
        if self.tried is not None and len(self.tried) != len(self.batteries):
            raise ValueError("tried has not one number for each battery")
        return self

    @property
    def by(self) -> list[str]:
        """The batteries, and where they were not tried on all, on how many images."""
        robust = self.robust.k + len(self.fallen)
        tried = self.tried
        if tried is None:
            tried = [robust] * len(self.batteries)
        return [
            name if count >= robust else f"{name} (on {count} of {robust})"
            for name, count in zip(self.batteries, tried, strict=True)
        ]

    def __str__(self) -> str:
        words = f"{len(self.fallen)} more fell, tried {', '.join(self.by)}"
        return f"{self.robust} ({words})"


def read_worst(source: Source, row: EncoderRow, entry: str) -> WorstCase | None:
    """The record beside an entry; None: there is none.

    Raises:
        UserError: a file that is not what the index says, or no such record.
        VerificationError: it is of another entry.
    """
    paths = [path for path in files_of(row, entry) if path.endswith(".json")]
    if not paths:
        return None
    if len(paths) > 1:
        raise VerificationError(f"two worst cases: {', '.join(paths)}")
    path = paths[0]
    found = read_record(source.fetch(row, path), WorstCase)
    if (found.encoder, found.entry) != (row.card.name, entry):
        raise VerificationError(
            f"{path} is the worst case of {found.encoder}/{found.entry}"
        )
    return found


def is_one(name: str) -> bool:
    """Whether a file of that name is one of the two."""
    return any(kind.fullmatch(name) for kind in (WORST, WORST_DELTAS))


def files_of(row: EncoderRow, entry: str) -> list[str]:
    """Paths of an entry's worst case, of both files, as the index has them."""
    place = f"{ENTRIES}/{entry}/"
    return [
        file.path
        for file in row.files
        if file.path.startswith(place) and is_one(file.path.removeprefix(place))
    ]


def read_claims(
    source: Source, row: EncoderRow, worst: WorstCase, data: Dataset
) -> Claims:
    """The adversarials of the record.

    Raises:
        UserError: a file that is not what the index says.
        VerificationError: nor what the record says, or damaged.
    """
    from zoo.deltas import unpack
    from zoo.files import read_tensors

    name = worst.deltas.path
    holds(f"worst case: a file called '{name}'", bool(WORST_DELTAS.fullmatch(name)))
    path = f"{ENTRIES}/{worst.entry}/{name}"
    agree(path, worst.deltas, row.file(path).model_copy(update={"path": name}))
    return unpack(read_tensors(source.fetch(row, path))[0], data)


def figure(result: Result, fallen: int) -> Proportion:
    """Robust accuracy when so many images that the result calls robust fell."""
    return Proportion.of(result.robust.k - fallen, result.robust.n)


def check_counts(worst: WorstCase, result: Result, claims: Claims) -> None:
    """That each adversarial is of another image that the entry calls robust.

    Raises:
        VerificationError: the first statement that does not follow.
    """
    rows = claims.positions.tolist()
    index, verdict = result.examples.index, result.examples.verdict
    holds("worst case: an image is fooled twice", len(set(rows)) == len(rows))
    holds(
        "worst case: an image that the entry does not call robust",
        all(verdict[row] is Verdict.ROBUST for row in rows),
    )
    holds(
        "worst case: a battery that is not listed",
        all(0 <= at < len(worst.batteries) for at in claims.attack_index.tolist()),
    )
    holds(
        "worst case: a battery was tried on fewer images than fell to it, or on more "
        "than are robust",
        _tried_fits(worst, result, claims),
    )
    agree("worst case: images", worst.fallen, sorted(index[row] for row in rows))
    agree("worst case: robust accuracy", worst.robust, figure(result, len(rows)))


def _tried_fits(worst: WorstCase, result: Result, claims: Claims) -> bool:
    if worst.tried is None:
        return True
    fell = [0] * len(worst.batteries)
    for at in claims.attack_index.tolist():
        fell[at] += 1
    return all(
        found <= tried <= result.robust.k
        for found, tried in zip(fell, worst.tried, strict=True)
    )
