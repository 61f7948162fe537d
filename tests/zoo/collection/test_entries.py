"""Entries carry their proof, and nobody can change one unseen.

One file in spite of its length: every forgery uses the same few tools of a forger.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from whole import read_whole, write_whole
from zoo_collection import ENTRY, Evaluated

from zoo.collection.audit import Audit, audit, plan
from zoo.collection.entries import Entry, entry_name, read_entry, short_threat
from zoo.collection.index import INDEX, FileRecord, scan
from zoo.collection.sources import FolderSource
from zoo.deltas import EXACT, pack, unpack
from zoo.encoder import load_encoder, save_encoder
from zoo.errors import VerificationError
from zoo.evidence import check_adversarials
from zoo.files import read_tensors
from zoo.records import (
    Proportion,
    TaskVersion,
    Verdict,
    read_record,
    write_record,
)
from zoo.result_file import PATTERN, read_result
from zoo.threat import Norm, ThreatModel
from zoo.verification import load_named_classifier, load_named_dataset

PLACE = f"tiny-digits/entries/{ENTRY}"


def check(root: Path) -> list[Audit]:
    """What `robrep-zoo verify --all` does."""
    source = FolderSource(root)
    return [audit(source, item, data_dir=None) for item in plan(source, None)]


def holds(root: Path) -> bool:
    return all(verdict.holds for verdict in check(root))


def rehash(root: Path) -> None:
    """What a careful forger does: make every checksum agree again."""
    place = root / PLACE
    entry = json.loads((place / "entry.json").read_text())
    entry["columns"]["path"] = next(place.glob(PATTERN)).name
    for key in ("result", "columns", "classifier", "deltas"):
        record = FileRecord.of(place, entry[key]["path"])
        entry[key] = record.model_dump(mode="json")
    (place / "entry.json").write_text(json.dumps(entry))
    write_record(root / INDEX, scan(root))


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all single values; of a list of numbers, the first."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, (*path, key))
    elif isinstance(content, list):
        for at, value in enumerate(content[: 4 if path[:1] == ("attacks",) else 1]):
            yield from leaves(value, (*path, at))
    else:
        yield path


def change(content: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


def other(value: Any) -> Any:
    """A different value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return "was null"


def test_holds_as_published(evaluated: Evaluated) -> None:
    verdicts = check(evaluated.published)
    assert [verdict.reason for verdict in verdicts] == [None, None]
    assert [verdict.item for verdict in verdicts] == [
        "tiny-digits",
        f"tiny-digits/{ENTRY}",
    ]


def test_the_fixture_is_not_degenerate(evaluated: Evaluated) -> None:
    # Tampering is only tested where there is something of each kind to tamper with.
    counts = {v: evaluated.result.examples.verdict.count(v) for v in Verdict}
    assert (
        min(counts[v] for v in (Verdict.ROBUST, Verdict.FOOLED, Verdict.MISCLASSIFIED))
        >= 5
    )


@pytest.mark.parametrize("file", ["entry.json", "result.json"])
def test_every_field_is_sealed(evaluated: Evaluated, tmp_path: Path, file: str) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    source_text = (root / PLACE / file).read_text()
    source = FolderSource(root)
    row = source.find("tiny-digits")
    for path in leaves(json.loads(source_text)):
        content = json.loads(source_text)
        value = content
        for key in path:
            value = value[key]
        change(content, path, other(value))
        (root / PLACE / file).write_text(json.dumps(content))
        verdict = audit(source, plan(source, f"tiny-digits/{ENTRY}")[0], data_dir=None)
        assert not verdict.holds, path
    (root / PLACE / file).write_text(source_text)
    assert audit(source, plan(source, f"tiny-digits/{ENTRY}")[0], data_dir=None).holds
    assert row.entries == [ENTRY]


def _shrink_eps(content: Any) -> None:
    content["threat"]["eps"] *= 0.5
    eps = content["threat"]["eps"]
    content["evidence"]["tolerance"] = ThreatModel(norm="Linf", eps=eps).tolerance(
        (1, 8, 8)
    )


def _claim_robust(content: Any) -> None:
    """Turns one fooled example into a robust one, with consistent figures."""
    examples = content["examples"]
    row = examples["verdict"].index("fooled")
    examples["verdict"][row] = "robust"
    one_more = Proportion.of(content["robust"]["k"] + 1, content["robust"]["n"])
    content["robust"] = one_more.model_dump()


def _better_figure(content: Any) -> None:
    one_more = Proportion.of(content["robust"]["k"] + 1, content["robust"]["n"])
    content["robust"] = one_more.model_dump()


def _narrow_interval(content: Any) -> None:
    robust = content["robust"]
    robust["low"] = (robust["low"] + robust["value"]) / 2


def _relabel(content: Any) -> None:
    """Calls a misclassified example correct by changing its label."""
    examples = content["examples"]
    row = examples["verdict"].index("misclassified")
    examples["label"][row] = examples["clean_prediction"][row]


def _repredict(content: Any) -> None:
    examples = content["examples"]
    row = examples["verdict"].index("misclassified")
    examples["clean_prediction"][row] = examples["label"][row]


def _swap_images(content: Any) -> None:
    index = content["examples"]["index"]
    index[0], index[1] = index[1], index[0]


FORGERIES: dict[str, Callable[[Any], None]] = {
    "a smaller eps": _shrink_eps,
    "a robust example more": _claim_robust,
    "a better figure alone": _better_figure,
    "a narrower interval": _narrow_interval,
    "another label": _relabel,
    "another prediction": _repredict,
    "other images": _swap_images,
}
FIGURES = [
    *(("clean", key) for key in ("value", "k", "n", "low", "high")),
    *(("robust", key) for key in ("value", "k", "n", "low", "high")),
    ("undecided",),
    ("threat", "norm"),
    *(("dataset", key) for key in ("name", "split", "n", "sha256", "classes")),
    ("dataset", "shape", 1),
    *(("model", key) for key in ("arch", "parameters", "weights_sha256")),
    ("probe", "protocol"),
    ("evidence", "count"),
    ("evidence", "tolerance"),
    *(
        ("attacks", 0, key)
        for key in ("name", "attempted", "fooled", "refused", "undecided")
    ),
    *(("attacks", 1, "robust", key) for key in ("value", "k", "n", "low", "high")),
    *(("examples", key, 0) for key in ("index", "label", "clean_prediction")),
    ("examples", "verdict", 0),
    ("examples", "outcomes", "pgd", 0),
]
VALUES = {"norm": "L2", "name": "mnist", "split": "train", "verdict": "undecided"}


def _forged_value(path: tuple[Any, ...], value: Any) -> Any:
    if path == ("dataset", "name"):
        return "imagefolder:nowhere"
    if path[:2] == ("examples", "verdict"):
        return "robust" if value != "robust" else "fooled"
    if path[:2] == ("examples", "outcomes"):
        return "held" if value != "held" else "fooled"
    return (
        VALUES.get(str(path[-1]), other(value))
        if path[0] != "attacks"
        else other(value)
    )


@pytest.mark.parametrize("path", FIGURES, ids=lambda p: ".".join(map(str, p)))
def test_a_forged_figure_is_caught_though_all_checksums_agree(
    evaluated: Evaluated, tmp_path: Path, path: tuple[Any, ...]
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    content = read_whole(root / PLACE)
    value = content
    for key in path:
        value = value[key]
    change(content, path, _forged_value(path, value))
    write_whole(root / PLACE, content)
    rehash(root)
    assert not holds(root)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_consistent_forgery_is_caught(
    evaluated: Evaluated, tmp_path: Path, name: str
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    content = read_whole(root / PLACE)
    FORGERIES[name](content)
    write_whole(root / PLACE, content)
    rehash(root)
    encoder, entry = check(root)
    assert encoder.holds
    assert not entry.holds


@pytest.mark.parametrize(
    "tensor", ["positions", "attack", "code", "scale", "narrow", "exact"]
)
def test_forged_perturbations_are_caught(
    evaluated: Evaluated, tmp_path: Path, tensor: str
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    path = root / PLACE / "deltas.safetensors"
    tensors = load_file(path)
    if tensor == "exact":
        tensors["code"][0] = EXACT  # an example stored as floats, that are the image
        tensors["exact"] = torch.zeros(1, 1, 8, 8)
    elif tensor == "narrow":
        tensors["narrow"] = tensors["narrow"][:-4]
    elif tensor == "scale":
        tensors["scale"] = tensors["scale"] * 1.5
    else:
        tensors[tensor] = (tensors[tensor] + 1).to(tensors[tensor].dtype)
    save_file(tensors, path)
    rehash(root)
    assert not holds(root)


@pytest.mark.parametrize("file", ["head.safetensors", "../../model.safetensors"])
def test_forged_weights_are_caught(
    evaluated: Evaluated, tmp_path: Path, file: str
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    path = root / PLACE / file
    if "model" in file:
        encoder = load_encoder(path)
        with torch.no_grad():
            next(encoder.parameters())[0] += 1e-3
        save_encoder(encoder, path)
    else:
        tensors = load_file(path)
        tensors["bias"][0] += 1e-3
        save_file(tensors, path)
    assert not holds(root)  # by the checksum
    rehash(root)
    assert not holds(root)  # by the card, or by what was evaluated


def test_a_proof_for_another_encoder_is_refused(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    entry = read_record(root / PLACE / "entry.json", Entry)
    forged = entry.model_copy(update={"weights_sha256": "0" * 64})
    write_record(root / PLACE / "entry.json", forged)
    rehash(root)
    assert "other weights" in str(check(root)[1].reason)


def test_the_proof_is_much_smaller_than_the_images(evaluated: Evaluated) -> None:
    result = read_result(evaluated.run)
    path = evaluated.published / PLACE / "deltas.safetensors"
    packed, _ = read_tensors(path)
    assert result.evidence.count >= 5
    stored = sum(t.numel() * t.element_size() for t in packed.values())
    as_bytes = result.evidence.count * 64  # one byte a pixel, as the dataset has it
    assert stored < 0.75 * as_bytes  # of which a fixed part, here for 20 only


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.05), ("L2", 0.4), ("L1", 3.0)])
def test_packed_adversarials_still_fool(
    evaluated: Evaluated, norm: Norm, eps: float
) -> None:
    # Not an attack of ours: random points of the ball that happen to fool.
    from zoo.ball import random_start
    from zoo.evidence_file import Claims

    classifier = load_named_classifier(evaluated.run, evaluated.result)
    data = load_named_dataset(evaluated.result, None)
    threat = ThreatModel(norm=norm, eps=eps)
    x = data.images(slice(0, 60))
    generator = torch.Generator().manual_seed(0)
    rows, images = [], []
    for _ in range(20):
        proposal = random_start(x, threat, generator)
        outcome = check_adversarials(classifier, x, proposal, data.labels, threat)
        found = outcome.fooled.nonzero().flatten()
        rows.append(found)
        images.append(proposal[found])
    claims = Claims(
        positions=torch.cat(rows),
        attack_index=torch.zeros(len(torch.cat(rows)), dtype=torch.int64),
        images=torch.cat(images),
    )
    assert len(claims.positions) > 50
    packed = pack(classifier, claims, data, threat)
    rebuilt = unpack(packed, data)
    assert torch.equal(rebuilt.positions, claims.positions)
    again = check_adversarials(
        classifier,
        data.images(rebuilt.positions),
        rebuilt.images[:],
        data.labels[rebuilt.positions],
        threat,
    )
    assert bool(again.fooled.all())


def test_only_what_no_grid_can_hold_is_stored_as_floats(evaluated: Evaluated) -> None:
    """An adversarial whose last bits matter: it is kept exactly."""
    from torch import nn

    from zoo.classifier import Classifier
    from zoo.evidence_file import Claims

    class Picky(nn.Module):
        """Fooled by one exact image and no other."""

        def __init__(self, image: torch.Tensor) -> None:
            super().__init__()
            self.image = image
            self.anchor = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hit = (x == self.image).flatten(1).all(dim=1).float() + self.anchor
            return torch.stack([1 - hit, hit], dim=1)

    data = load_named_dataset(evaluated.result, None)
    zero = int((data.labels == 0).nonzero()[0])
    image = (data.images([zero]) + math.pi / 1000).clamp(0, 1)
    classifier = Classifier(Picky(image), nn.Identity(), classes=2, shape=(1, 8, 8))
    claims = Claims(
        positions=torch.tensor([zero]), attack_index=torch.tensor([0]), images=image
    )
    packed = pack(classifier, claims, data, ThreatModel(norm="Linf", eps=0.1))
    assert packed["code"].tolist() == [EXACT]
    assert torch.equal(unpack(packed, data).images[:], image)


def test_a_bomb_is_not_unpacked(evaluated: Evaluated) -> None:
    import zlib

    data = load_named_dataset(evaluated.result, None)
    bomb = torch.frombuffer(
        bytearray(zlib.compress(b"\0" * (1 << 24))), dtype=torch.uint8
    )
    tensors = {
        "positions": torch.zeros(1).int(),
        "attack": torch.zeros(1).to(torch.uint8),
        "code": torch.zeros(1).to(torch.uint8),
        "scale": torch.zeros(1),
        "narrow": bomb,
        "wide": bomb,
        "exact": torch.zeros(0, 1, 8, 8),
    }
    with pytest.raises(VerificationError, match="65 bytes, not 64"):
        unpack(tensors, data)


def test_short_names() -> None:
    assert short_threat(ThreatModel(norm="Linf", eps=8 / 255)) == "linf8"
    assert short_threat(ThreatModel(norm="L2", eps=0.5)) == "l2-0.5"


def test_entries_that_differ_have_names_that_differ(evaluated: Evaluated) -> None:
    base = evaluated.result
    assert base.probe is not None
    data = base.dataset
    variants: dict[str, dict[str, Any]] = {
        "digits-linf-0.02-slf-v2-fgsm-pgd": {},
        "digits-linf-0.02-slf-v2": {"battery": "standard"},
        "digits-linf8-slf-v2": {
            "battery": "standard",
            "threat": ThreatModel(norm="Linf", eps=8 / 255),
        },
        "digits-linf-0.02-alf-10pct-quick": {
            "battery": "quick",
            "probe": base.probe.model_copy(update={"protocol": "ALF", "labels": "10%"}),
            "task": TaskVersion(dataset=1, probe=1),
        },
        "digits-train-linf-0.02-slf-v2": {
            "battery": "standard",
            "dataset": data.model_copy(update={"split": "train"}),
        },
        "imagefolder-my-data-linf-0.02-slf-v2": {
            "battery": "standard",
            "dataset": data.model_copy(update={"name": "imagefolder:/My data"}),
        },
    }
    names = [entry_name(base.model_copy(update=change)) for change in variants.values()]
    assert names == list(variants)


def test_an_entry_is_read_back(evaluated: Evaluated) -> None:
    source = FolderSource(evaluated.published)
    published = read_entry(source, source.find("tiny-digits"), ENTRY)
    assert published.result == evaluated.result
