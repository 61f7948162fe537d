"""Proof-carrying leaderboard entries.

An entry is a result, the head that it belongs to, and the perturbations that fool it,
in a folder `entries/NAME` of an encoder. From these and the published weights anyone
recomputes, with forward passes alone, the clean accuracy, every adversarial and all
figures that follow. That confirms each fooling; that no stronger attack exists is what
the named battery stands for, and only running it again can confirm that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from zoo.batteries import shown
from zoo.collection.index import ENTRIES, ENTRY, EncoderRow, FileRecord
from zoo.collection.sources import Source
from zoo.collection.worst_case import WorstCase, read_worst
from zoo.errors import VerificationError
from zoo.files import read_tensors
from zoo.records import (
    Name,
    Record,
    Result,
    Sha256,
    read_record,
)
from zoo.result_file import RESULT, read_result
from zoo.selection import SELECTED, as_limit
from zoo.task_version import version_of
from zoo.threat import ThreatModel

if TYPE_CHECKING:
    from torch import nn

    from zoo.classifier import Classifier
    from zoo.encoder import Encoder

HEAD = "head.safetensors"
WHOLE = "classifier.safetensors"
OWN_WEIGHTS = ("aff", "none")
"""Protocols whose classifier is not the published encoder with a head on it."""
DELTAS = "deltas.safetensors"


class Entry(Record):
    """What an entry consists of."""

    schema_version: Literal[1, 2] = 2
    name: Name
    encoder: Name
    weights_sha256: Sha256
    """Of the encoder's weights file."""
    protocol: str
    """"SLF", "SLF-R", "ALF", "AFF", or "none" for a ready-made classifier."""
    result: FileRecord
    columns: FileRecord | None = None
    """What the result has one value per example of; null in schema 1, whose results
    hold it themselves."""
    classifier: FileRecord
    """The head, or the whole classifier where fine-tuning changed the encoder."""
    deltas: FileRecord

    @model_validator(mode="after")
    def _columns_since_schema_2(self) -> Self:
        if (self.schema_version >= 2) != (self.columns is not None):
            raise ValueError("an entry names a file of columns from schema 2 on")
        return self


@dataclass(frozen=True, kw_only=True)
class Published:
    """An entry as read from a collection."""

    entry: Entry
    result: Result
    row: EncoderRow
    worst: WorstCase | None = None
    """What was found beyond the entry's battery, if that is published beside it."""

    @property
    def reference(self) -> str:
        """ENCODER/ENTRY, as people write it."""
        return f"{self.entry.encoder}/{self.entry.name}"

    @property
    def protocol(self) -> str:
        """ "SLF", or "SLF, 10% labels": few labels are another task."""
        probe = self.result.probe
        labels = f", {probe.labels} labels" if probe and probe.labels else ""
        return f"{self.entry.protocol.upper()}{labels}"

    @property
    def battery(self) -> str:
        """Its name; "custom" if that says nothing about the attacks."""
        return shown(self.result)

    @property
    def images(self) -> str:
        """ "", or "selected images" if they may have been chosen for the figure."""
        examples = self.result.examples
        return "" if as_limit(examples.index, examples.label) else SELECTED


def entry_name(result: Result) -> str:
    """The usual name of an entry, such as "digits-linf-0.1-slf".

    What differs from a standard evaluation is added: "digits-linf-0.1-slf-10pct-quick",
    and the version of the protocol, if not the first: "digits-linf-0.1-slf-v2".
    """
    data = result.dataset
    words = [data.name, short_threat(result.threat), protocol(result)]
    version = version_of(result).probe or 1
    words += [f"v{version}"] * (version > 1)
    if data.split != "test":
        words.insert(1, data.split)
    if result.probe and result.probe.labels:
        words.append(result.probe.labels.replace("%", "pct"))
    if result.battery != "standard":
        words.append(result.battery)
    plain = re.sub(r"[^a-z0-9._-]+", "-", "-".join(words).lower())
    return plain.strip("-._")[:96]


def short_threat(threat: ThreatModel) -> str:
    """ "linf8" for Linf 8/255, "l2-0.5" for L2 0.5."""
    text = str(threat).lower()
    if text.endswith("/255"):
        return text.removesuffix("/255").replace(" ", "")
    return text.replace(" ", "-")


def protocol(result: Result) -> str:
    """Lower-case protocol of the head."""
    return result.probe.protocol.lower() if result.probe else "none"


def read_entry(source: Source, row: EncoderRow, name: str) -> Published:
    """An entry's record and result.

    Raises:
        UserError: no such entry, or a file that is not what the index says.
        VerificationError: a file that is not what the entry says.
    """
    row.check_entry(name)
    place = f"{ENTRIES}/{name}"
    entry = read_record(source.fetch(row, f"{place}/{ENTRY}"), Entry)
    if (entry.name, entry.encoder) != (name, row.card.name):
        raise VerificationError(
            f"{place}/{ENTRY} is the entry {entry.encoder}/{entry.name}"
        )
    result = _read_result(source, row, entry)
    worst = read_worst(source, row, name)
    return Published(entry=entry, result=result, row=row, worst=worst)


def _read_result(source: Source, row: EncoderRow, entry: Entry) -> Result:
    """The entry's result; its columns come from the file that both of them name."""
    place = f"{ENTRIES}/{entry.name}"
    files = [entry.result, *filter(None, (entry.columns,))]
    for file in files:
        same_file(row, f"{place}/{file.path}", file)

    def beside(name: str) -> Path:
        if entry.columns is None or entry.columns.path != name:
            raise VerificationError(
                f"the columns of {place}/{RESULT} are not those that the entry names"
            )
        return source.fetch(row, f"{place}/{name}")

    return read_result(source.fetch(row, f"{place}/{entry.result.path}"), beside)


def same_file(row: EncoderRow, path: str, stated: FileRecord) -> None:
    listed = row.file(path)
    if (listed.sha256, listed.size) != (stated.sha256, stated.size):
        raise VerificationError(
            f"the entry and the index disagree about {path}: one of them was altered"
        )


def load_classifier(source: Source, published: Published) -> Classifier:
    """The classifier that the figure belongs to, rebuilt from published weights.

    Raises:
        VerificationError: it is not the one that was evaluated.
    """
    from zoo.classifier_file import parameter_count
    from zoo.collection.store import load_encoder_by_name
    from zoo.encoder import fingerprint
    from zoo.recount import agree

    entry, result, row = published.entry, published.result, published.row
    if entry.weights_sha256 != row.card.sha256:
        raise VerificationError(
            f"the entry {published.reference} is for other weights than the card's"
        )
    encoder = load_encoder_by_name(row.card.name, source)
    path = f"{ENTRIES}/{entry.name}/{entry.classifier.path}"
    same_file(row, path, entry.classifier)
    classifier = _assemble(encoder, source.fetch(row, path), result)
    if fingerprint(classifier) != result.model.weights_sha256:
        raise VerificationError(
            f"the published weights are not those that {published.reference} evaluated"
        )
    agree("parameters", result.model.parameters, parameter_count(classifier))
    return classifier


def _assemble(encoder: Encoder, path: Path, result: Result) -> Classifier:
    """Encoder and head, or the whole classifier from its file."""
    from torch import nn

    from zoo import classifier_file
    from zoo.classifier import Classifier
    from zoo.encoder import Encoder, load_weights
    from zoo.recount import agree

    if (path.name == WHOLE) != (protocol(result) in OWN_WEIGHTS):
        raise VerificationError(
            f"protocol {protocol(result)}: the classifier cannot lie in {path.name}"
        )
    if path.name == WHOLE:
        classifier = classifier_file.load_classifier(path)
        if isinstance(classifier.encoder, Encoder):
            agree("architecture", result.model.arch, classifier.encoder.spec.arch)
        if protocol(result) == "aff":
            _check_fine_tuned(classifier.encoder, encoder)
        return classifier
    agree("architecture", result.model.arch, encoder.spec.arch)
    tensors, _ = read_tensors(path)
    head = nn.Linear(encoder.dim, result.dataset.classes)
    load_weights(head, tensors, source=str(path))
    return Classifier(
        encoder, head, classes=result.dataset.classes, shape=encoder.spec.shape
    )


def _check_fine_tuned(tuned: nn.Module, published: Encoder) -> None:
    """AFF begins from the published encoder: same architecture, other weights.

    But for a linear end, which its head takes in.
    """
    from zoo.encoder import Encoder, fingerprint
    from zoo.linear_end import spec_without_end, without_end

    if not isinstance(tuned, Encoder) or tuned.spec != spec_without_end(published.spec):
        raise VerificationError(
            "protocol aff: the fine-tuned encoder is built otherwise than the "
            "published one"
        )
    if fingerprint(tuned) == fingerprint(without_end(published)[0]):
        raise VerificationError(
            "protocol aff: the encoder was not fine-tuned, its weights are those of "
            "the published one"
        )
