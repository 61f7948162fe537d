"""Verifies an entry from what is published, with forward passes only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.collection.entries import Published, load_classifier, protocol, same_file
from zoo.collection.index import ENTRIES
from zoo.collection.sources import Source
from zoo.collection.worst_case import check_counts, read_claims
from zoo.errors import VerificationError
from zoo.files import read_tensors
from zoo.moments import ahead
from zoo.processes import ALONE, Company
from zoo.records import Result, Training

if TYPE_CHECKING:
    from zoo.classifier import Classifier
    from zoo.datasets.base import Dataset
    from zoo.verification import Finding


def verify_entry(
    source: Source,
    published: Published,
    *,
    data_dir: Path | None = None,
    images: str | None = None,
    device: str = "cpu",
    company: Company = ALONE,
) -> list[Finding]:
    """Recomputes an entry from what is published, with forward passes only.

    Args:
        source: Where it is published.
        published: As `read_entry` returns it.
        data_dir: Where the dataset lies.
        images: Where images of one's own are (imagefolder:PATH).
        device: Where to run the classifier.
        company: Processes that share the forward passes, each of which calls this.

    Raises:
        UserError: a file or the dataset is missing or damaged.
        VerificationError: a claim does not hold; says which.
    """
    from zoo import verification
    from zoo.deltas import unpack

    entry, result = published.entry, published.result
    if entry.protocol != protocol(result):
        raise VerificationError(
            f"protocol: stated {entry.protocol}, the result says {protocol(result)}"
        )
    trained, card = result.model.training, published.row.card
    if trained is not None and trained != card.training:
        raise VerificationError(
            f"the result says {_difference(trained, card.training)} of the training, "
            "which the card says otherwise"
        )
    classifier = load_classifier(source, published)
    data = verification.load_named_dataset(result, data_dir, images)
    path = f"{ENTRIES}/{entry.name}/{entry.deltas.path}"
    same_file(published.row, path, entry.deltas)
    tensors, _ = read_tensors(source.fetch(published.row, path))
    claims = unpack(tensors, data)
    weights = verification.Finding(
        "weights", f"{result.model.weights_sha256[:12]}..., encoder and head"
    )
    found = verification.verify(
        result,
        classifier.to(device),
        claims,
        data,
        data_dir=data_dir,
        images=images,
        device=device,
        company=company,
    )
    more = _check_worst(source, published, classifier, data, device, company)
    return [weights, *found, *more, *_warnings(result)]


def _check_worst(
    source: Source,
    published: Published,
    classifier: Classifier,
    data: Dataset,
    device: str,
    company: Company,
) -> list[Finding]:
    """What was found beyond the battery, checked as the entry's own evidence is."""
    from zoo.verification import Finding, check_claims

    worst, result = published.worst, published.result
    if worst is None:
        return []
    claims = read_claims(source, published.row, worst, data)
    check_counts(worst, result, claims)
    check_claims(result, classifier, claims, data, device, company)
    return [Finding("worst case known", str(worst))]


def _warnings(result: Result) -> Iterator[Finding]:
    """About a result that nobody else can make again, or that is from the future."""
    from zoo.verification import Finding

    made = result.provenance
    if made.changed:
        text = f"{str(made.revision)[:12]}, with changes not committed"
        yield Finding("warning", f"made by robrep of revision {text}")
    if ahead(made.created):
        yield Finding("warning", f"states that it was made on {made.created:%Y-%m-%d}")


def _difference(training: Training, other: Training) -> str:
    """The first field in which they differ, with its value in the first."""
    name = next(
        name
        for name in Training.model_fields
        if getattr(training, name) != getattr(other, name)
    )
    return f"{name} = {getattr(training, name)!r}"
