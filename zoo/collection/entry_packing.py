"""Packs the folder of an evaluation into an entry of an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.collection.entries import (
    DELTAS,
    HEAD,
    OWN_WEIGHTS,
    WHOLE,
    Entry,
    entry_name,
    protocol,
)
from zoo.collection.index import ENTRIES, ENTRY, FileRecord
from zoo.collection.public import public_result
from zoo.datasets.local import noted
from zoo.errors import VerificationError
from zoo.files import write_tensors
from zoo.records import Card, write_record
from zoo.result_file import RESULT, read_result, write_result

if TYPE_CHECKING:
    from zoo.classifier import Classifier
    from zoo.encoder import Encoder


def build_entry(
    run: Path,
    encoder: Encoder,
    card: Card,
    folder: Path,
    *,
    name: str | None = None,
    data_dir: Path | None = None,
) -> Entry:
    """Turns the folder of an evaluation into an entry.

    Files are compared by hash; whether the claims hold is for `verify_entry` to say, of
    the entry as it was packed.

    Args:
        run: Holds result.json, classifier.safetensors and adversarials.safetensors.
        encoder: The one that the entry will belong to.
        card: Its card.
        folder: The encoder's folder; the entry goes to its `entries/NAME`.
        name: Of the entry; by default `entry_name`.
        data_dir: Where the dataset lies.

    Raises:
        UserError: a file is missing or damaged.
        VerificationError: a file is not the one that the result names.
    """
    from zoo import verification
    from zoo.deltas import pack
    from zoo.evidence_file import read_claims

    result = read_result(run)
    classifier = verification.load_named_classifier(run, result)
    data = verification.load_named_dataset(result, data_dir, noted(run))
    claims = read_claims(run, result, data)
    result = public_result(result, card)
    place = folder / ENTRIES / (name or entry_name(result))
    kept = _write_classifier(classifier, encoder, place, protocol(result))
    write_tensors(
        place / DELTAS, pack(classifier, claims, data, result.threat), {"version": 1}
    )
    columns = write_result(place, result)
    entry = Entry(
        name=place.name,
        encoder=card.name,
        weights_sha256=card.sha256,
        protocol=protocol(result),
        result=FileRecord.of(place, RESULT),
        columns=FileRecord.of(place, columns),
        classifier=FileRecord.of(place, kept),
        deltas=FileRecord.of(place, DELTAS),
    )
    write_record(place / ENTRY, entry)
    return entry


def _write_classifier(
    classifier: Classifier, encoder: Encoder, place: Path, protocol: str
) -> str:
    """The head alone if the encoder is the published one; returns the file's name."""
    from zoo.classifier_file import save_classifier
    from zoo.encoder import fingerprint

    head = classifier.linear
    if protocol in OWN_WEIGHTS or head is None:
        save_classifier(classifier, place / WHOLE)
        return WHOLE
    if fingerprint(classifier.encoder) != fingerprint(encoder):
        raise VerificationError(
            f"the evaluation fitted its head on another encoder than the one published "
            f"(protocol {protocol} leaves the encoder as it is)"
        )
    write_tensors(place / HEAD, head.state_dict(), {})
    return HEAD
