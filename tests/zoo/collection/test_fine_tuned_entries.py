"""Entries whose encoder was fine-tuned (AFF) carry it, and cannot pass for another."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from zoo_collection import ENTRY, Evaluated, add_encoder

import zoo
from robrep_eval import evaluate
from robrep_eval.probes import adversarial as adversarial_probes
from robrep_eval.probes.linear import ProbeSettings
from zoo.board.leaderboard import build
from zoo.classifier import Classifier
from zoo.classifier_file import load_classifier, save_classifier
from zoo.collection.audit import audit, plan
from zoo.collection.entries import load_classifier as load_published
from zoo.collection.entries import read_entry
from zoo.collection.index import INDEX, FileRecord, scan
from zoo.collection.publish import Publication, publish
from zoo.collection.sources import FolderSource
from zoo.encoder import Encoder, EncoderSpec, fingerprint
from zoo.errors import VerificationError
from zoo.linear_end import without_end
from zoo.records import write_record
from zoo.result_file import PATTERN, read_result, write_result
from zoo.verification import verify_folder

EMBEDDED = Path(zoo.__file__).parent / "embedded"
AFF = "digits-linf-0.02-aff-fgsm"
CHEAP = replace(
    adversarial_probes.AFF,
    rates=(0.05,),
    epochs=1,
    min_steps=0,
    steps=1,
    validation_steps=1,
)


@pytest.fixture(scope="module")
def tuned(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection with an entry of each kind, for the same encoder."""
    root = tmp_path_factory.mktemp("tuned")
    patch = pytest.MonkeyPatch()
    patch.setenv("ROBREP_ZOO", str(evaluated.plain))
    patch.setattr(adversarial_probes, "AFF", CHEAP)
    evaluate(
        "zoo:tiny-digits",
        eps=0.02,
        attacks="fgsm",
        limit=40,
        probe=ProbeSettings(protocol="AFF"),
        measure=(),
        output=root / "run",
    )
    publish(Publication(runs=[root / "run", evaluated.run]), str(root / "published"))
    patch.undo()
    return root


def reason(root: Path, entry: str) -> str | None:
    """Why an entry does not hold; None if it does."""
    source = FolderSource(root)
    (item,) = plan(source, f"tiny-digits/{entry}")
    verdict = audit(source, item, data_dir=None)
    assert verdict.holds == (verdict.reason is None)
    return verdict.reason


def seal(
    root: Path, entry: str, *, name: str = "tiny-digits", **changes: object
) -> None:
    """What a careful forger does: make the entry, and every checksum, agree."""
    place = root / name / "entries" / entry
    record = json.loads((place / "entry.json").read_text()) | changes
    record["columns"] = next(place.glob(PATTERN)).name
    for key in ("result", "columns", "classifier", "deltas"):
        path = record[key] if isinstance(record[key], str) else record[key]["path"]
        record[key] = FileRecord.of(place, path).model_dump(mode="json")
    (place / "entry.json").write_text(json.dumps(record))
    write_record(root / INDEX, scan(root))


def relabel(root: Path, entry: str, protocol: str) -> Path:
    """Claims another protocol in the result; returns the entry's folder."""
    place = root / "tiny-digits" / "entries" / entry
    result = read_result(place)
    assert result.probe is not None
    probe = result.probe.model_copy(update={"protocol": protocol.upper()})
    write_result(place, result.model_copy(update={"probe": probe}))
    return place


def test_the_run_and_the_entry_carry_the_tuned_encoder(
    evaluated: Evaluated, tuned: Path
) -> None:
    assert verify_folder(tuned / "run")
    root = tuned / "published"
    assert reason(root, AFF) is None
    assert reason(root, ENTRY) is None
    source = FolderSource(root)
    row = source.find("tiny-digits")
    rebuilt = load_published(source, read_entry(source, row, AFF))
    frozen = load_published(source, read_entry(source, row, ENTRY))
    run = load_classifier(tuned / "run" / "classifier.safetensors")
    assert fingerprint(rebuilt) == fingerprint(run)
    assert isinstance(rebuilt.encoder, Encoder)
    assert isinstance(frozen.encoder, Encoder)
    assert rebuilt.encoder.spec == frozen.encoder.spec
    assert fingerprint(rebuilt.encoder) != fingerprint(frozen.encoder)


def test_a_linear_end_goes_into_the_head_and_nothing_else_may_change(
    tmp_path: Path,
) -> None:
    root = tmp_path / "zoo"
    name, entry = "spectral-fashion-mnist", "fashion-mnist-linf-0.1-aff-10pct"
    shutil.copytree(EMBEDDED / name, root / name)
    write_record(root / INDEX, scan(root))
    source = FolderSource(root)
    published = zoo.load(name)
    tuned = load_published(source, read_entry(source, source.find(name), entry))
    assert isinstance(tuned.encoder, Encoder)
    shortened, _ = without_end(published)
    assert tuned.encoder.spec == shortened.spec
    assert published.spec != shortened.spec
    file = root / name / "entries" / entry / "classifier.safetensors"
    for encoder, complaint in (
        (shortened, "not fine-tuned"),
        (published, "built otherwise"),
    ):
        head = torch.nn.Linear(encoder.dim, 10)
        forged = Classifier(encoder, head, classes=10, shape=encoder.spec.shape)
        save_classifier(forged.eval(), file)
        seal(root, entry, name=name)
        source = FolderSource(root)
        with pytest.raises(VerificationError, match=complaint):
            load_published(source, read_entry(source, source.find(name), entry))


def test_protocols_are_ranked_apart(tuned: Path) -> None:
    rows = build(FolderSource(tuned / "published")).rows
    assert [(row.protocol, row.place) for row in rows] == [("SLF", "1"), ("AFF", "1")]


def change_weights(root: Path) -> None:
    place = root / "tiny-digits" / "entries" / AFF
    classifier = load_classifier(place / "classifier.safetensors")
    with torch.no_grad():
        next(classifier.encoder.parameters())[0] += 1e-3
    save_classifier(classifier, place / "classifier.safetensors")
    seal(root, AFF)


def pass_for_slf(root: Path) -> None:
    relabel(root, AFF, "slf")
    seal(root, AFF, protocol="slf")


def wrap_published_weights(root: Path) -> None:
    """The published encoder's own weights, offered as fine-tuned ones."""
    source = FolderSource(root)
    row = source.find("tiny-digits")
    classifier = load_published(source, read_entry(source, row, ENTRY))
    place = relabel(root, ENTRY, "aff")
    save_classifier(classifier, place / "classifier.safetensors")
    seal(root, ENTRY, protocol="aff", classifier="classifier.safetensors")


def head_alone(root: Path) -> None:
    relabel(root, ENTRY, "aff")
    seal(root, ENTRY, protocol="aff")


def other_architecture(root: Path) -> None:
    place = root / "tiny-digits" / "entries" / AFF
    wide = Encoder(
        EncoderSpec(
            arch="resnet_s8",
            options={"widths": [4, 12], "blocks": [1, 1]},
            shape=(1, 8, 8),
        )
    )
    head = torch.nn.Linear(wide.dim, 10)
    classifier = Classifier(wide, head, classes=10, shape=(1, 8, 8))
    save_classifier(classifier, place / "classifier.safetensors")
    seal(root, AFF)


FORGERIES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "other weights": (change_weights, AFF, "not those that .* evaluated"),
    "AFF as SLF": (pass_for_slf, AFF, "protocol slf: .* cannot lie in"),
    "SLF as AFF": (head_alone, ENTRY, "protocol aff: .* cannot lie in"),
    "published weights as AFF": (wrap_published_weights, ENTRY, "was not fine-tuned"),
    "another architecture": (other_architecture, AFF, "built otherwise"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries_are_caught_though_all_checksums_agree(
    tuned: Path, tmp_path: Path, name: str
) -> None:
    forge, entry, message = FORGERIES[name]
    root = tmp_path / "zoo"
    shutil.copytree(tuned / "published", root)
    forge(root)
    found = reason(root, entry)
    assert found is not None
    assert re.search(message, found)


def test_a_single_flipped_weight_is_caught_by_its_checksum(
    tuned: Path, tmp_path: Path
) -> None:
    root = tmp_path / "zoo"
    shutil.copytree(tuned / "published", root)
    path = root / "tiny-digits" / "entries" / AFF / "classifier.safetensors"
    assert "head.bias" in load_file(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert reason(root, AFF) is not None


def test_a_frozen_probe_on_another_encoder_is_not_published(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    add_encoder(tmp_path, "other-digits", seed=9)
    request = Publication(runs=[tmp_path / "other-digits", evaluated.run])
    with pytest.raises(VerificationError, match="another encoder"):
        publish(request, str(tmp_path / "published"))
    assert not (tmp_path / "published").exists()
