"""A bundle for RobustBench: all that its maintainers ask for, made from an entry.

model_info/DATASET/THREAT/NAME.json   their schema
models/DATASET/THREAT/NAME.pt         weights, where their loader looks
NAME.py                               definition, and `register()` for their zoo
check.py                              loads and checks all that, without robrep
ISSUE.md                              the form "New Model(s)", filled
autoattack.log, verdicts.csv          the evaluation
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.collection.entries import Published, load_classifier, read_entry
from zoo.collection.entry_verification import verify_entry
from zoo.collection.index import ENTRIES
from zoo.collection.model_card import template
from zoo.collection.sources import Source
from zoo.errors import MissingDatasetError, UserError
from zoo.files import copy_file, read_tensors, sha256_file, write_json, write_text
from zoo.judgement import doubts
from zoo.records import Result
from zoo.submission import check as submission_check
from zoo.submission.info import ARCHITECTURES, Paper, model_info, robustbench_name
from zoo.submission.log import log_lines, verdict_table
from zoo.submission.model import definition, identifier, load_definition, weights
from zoo.submission.requirements import (
    Check,
    check_defence,
    check_health,
    check_protocol,
)

if TYPE_CHECKING:
    from zoo.classifier import Classifier
    from zoo.datasets.base import Dataset
    from zoo.evidence_file import Claims


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What was written, and what stands in the way of submitting it."""

    folder: Path
    name: str
    checks: tuple[Check, ...]

    @property
    def missing(self) -> list[Check]:
        """Requirements that are not met."""
        return [check for check in self.checks if not check.holds]


def submit(
    source: Source,
    reference: str,
    paper: Paper,
    *,
    output: Path | None = None,
    variant: str | None = None,
    data_dir: Path | None = None,
    draft: bool = False,
) -> Bundle:
    """Checks the requirements and writes the bundle.

    Args:
        source: The collection.
        reference: ENCODER/ENTRY.
        paper: Title, authors and so on.
        output: Folder to write; by default the RobustBench name, here.
        variant: Added to the name after "_", for several models of one paper.
        data_dir: Where the dataset lies.
        draft: Write the bundle though requirements are not met.

    Raises:
        UserError: requirements are not met (each is named), or no such entry.
        VerificationError: the entry does not hold.
    """
    encoder, _, entry = reference.partition("/")
    published = read_entry(source, source.find(encoder), entry)
    checks = [*_stated(published, paper)]
    try:
        material = _gather(source, published, data_dir)
    except MissingDatasetError as error:
        lacks = f"{_lacks(reference, checks)} And " if _unmet(checks) else ""
        raise MissingDatasetError(f"{lacks}{error}") from None
    checks += check_defence(material.classifier, material.data)
    if _unmet(checks) and not draft:
        raise UserError(
            f"{_lacks(reference, checks)} (--draft writes the bundle all the same)"
        )
    card = published.row.card
    name = card.robustbench_id or robustbench_name(paper, card, variant)
    folder = output or Path(name)
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another --output")
    bundle = Bundle(folder=folder, name=name, checks=tuple(checks))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".bundle-") as scratch:
        stage = Path(scratch) / "bundle"
        stage.mkdir()
        _write(stage, bundle, material, paper)
        stage.rename(folder)
    return bundle


@dataclass(frozen=True, kw_only=True)
class _Material:
    """An entry that holds, with all that it speaks of."""

    published: Published
    classifier: Classifier
    data: Dataset
    claims: Claims


def _stated(published: Published, paper: Paper) -> list[Check]:
    """What can be said without images."""
    result = published.result
    return [
        *check_protocol(result),
        *check_health(doubts(result.measurements.health)),
        _check_paper(paper),
    ]


def _unmet(checks: list[Check]) -> list[str]:
    return [f"{check.what}: {check.found}" for check in checks if not check.holds]


def _lacks(reference: str, checks: list[Check]) -> str:
    missing = "; ".join(_unmet(checks))
    return f"{reference} cannot be submitted yet; missing: {missing}."


def _gather(source: Source, published: Published, data_dir: Path | None) -> _Material:
    """Verifies an entry."""
    from zoo import verification
    from zoo.deltas import unpack

    row = published.row
    verify_entry(source, published, data_dir=data_dir)
    data = verification.load_named_dataset(published.result, data_dir)
    place = f"{ENTRIES}/{published.entry.name}/{published.entry.deltas.path}"
    return _Material(
        published=published,
        classifier=load_classifier(source, published),
        data=data,
        claims=unpack(read_tensors(source.fetch(row, place))[0], data),
    )


def _check_paper(paper: Paper) -> Check:
    missing = paper.missing()
    found = ", ".join(f"no --{name}" for name in missing) or paper.title
    return Check("paper (title, authors, link, venue)", not missing, found)


def _write(stage: Path, bundle: Bundle, material: _Material, paper: Paper) -> None:
    published = material.published
    result = published.result
    board = Path(result.dataset.name) / result.threat.norm
    info = model_info(result, published.row.card, paper)
    write_json(stage / "model_info" / board / f"{bundle.name}.json", info)
    weights_path = stage / "models" / board / f"{bundle.name}.pt"
    _write_model(stage, weights_path, bundle.name, material)
    write_text(stage / "autoattack.log", "\n".join(_log(material)) + "\n")
    write_text(stage / "verdicts.csv", verdict_table(result))
    copy_file(Path(submission_check.__file__), stage / "check.py")
    issue = _issue(
        bundle, published, paper, info, weights_path.relative_to(stage), stage
    )
    write_text(stage / "ISSUE.md", f"{issue.rstrip()}\n")


def _log(material: _Material) -> list[str]:
    x = material.data.images(slice(None))
    x_adv, claims = x.clone(), material.claims
    # One adversarial per image: AutoAttack keeps that of the first attack to succeed.
    for row, image in reversed(
        list(zip(claims.positions.tolist(), claims.images, strict=True))
    ):
        x_adv[row] = image
    return log_lines(material.published.result, x, x_adv)


def _write_model(stage: Path, path: Path, name: str, material: _Material) -> None:
    """Definition and weights, after they were found to give the same logits."""
    import torch

    classifier, result = material.classifier, material.published.result
    source = definition(
        classifier,
        name=name,
        reference=material.published.reference,
        dataset=result.dataset.name,
        threat=result.threat.norm,
    )
    state = weights(classifier)
    rebuilt = load_definition(source, name)
    rebuilt.load_state_dict(state)
    x = material.data.images(slice(64))
    with torch.no_grad():
        if not torch.equal(rebuilt(x), classifier(x)):
            raise AssertionError("the assembled model differs from the classifier")
    write_text(stage / f"{identifier(name)}.py", source)
    buffer = io.BytesIO()  # torch turns a full disk into another error
    torch.save(state, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getbuffer())


def _issue(
    bundle: Bundle,
    published: Published,
    paper: Paper,
    info: dict[str, str | bool | int | None],
    weights_path: Path,
    stage: Path,
) -> str:
    result, card = published.result, published.row.card
    robust = result.robust
    return template("robustbench_issue.md.j2").render(
        name=bundle.name,
        paper=paper,
        info=info,
        threat=result.threat.norm,
        result=result,
        card=card,
        interval=f"[{100 * robust.low:.2f}, {100 * robust.high:.2f}]",
        engine=", ".join(_engines(result)),
        weights=weights_path.as_posix(),
        sha256=sha256_file(stage / weights_path),
        definition=f"{identifier(bundle.name)}.py",
        own_architecture=card.arch not in ARCHITECTURES,
        mit=card.licence.upper() == "MIT",
        checks=bundle.checks,
        versions=sorted(result.provenance.versions.items()),
    )


def _engines(result: Result) -> Sequence[str]:
    """Whose code attacked, each once."""
    return list(dict.fromkeys(run.engine for run in result.attacks))
