"""What a careful forger of entries does."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from zoo import datasets
from zoo.classifier import Classifier
from zoo.collection.index import INDEX, FileRecord, scan
from zoo.deltas import pack
from zoo.evidence_file import Claims
from zoo.records import write_record
from zoo.result_file import PATTERN
from zoo.threat import ThreatModel


def rehash(root: Path, place: Path) -> None:
    """Makes every checksum of the entry in `place` and of the index agree again."""
    reseal(place)
    write_record(root / INDEX, scan(root))


def reseal(place: Path) -> None:
    """Makes every checksum of the entry in `place` agree again."""
    entry = json.loads((place / "entry.json").read_text())
    entry["columns"]["path"] = next(place.glob(PATTERN)).name
    for key in ("result", "columns", "classifier", "deltas"):
        record = FileRecord.of(place, entry[key]["path"])
        entry[key] = record.model_dump(mode="json")
    (place / "entry.json").write_text(json.dumps(entry))


def save_no_adversarials(path: Path) -> None:
    """Packed adversarials of digits, of which there are none."""
    none = Claims(
        positions=torch.zeros(0, dtype=torch.int64),
        attack_index=torch.zeros(0, dtype=torch.int64),
        images=torch.zeros(0, 1, 8, 8),
    )
    unused = Classifier(nn.Flatten(), nn.Linear(64, 10), classes=10, shape=(1, 8, 8))
    data = datasets.load("digits", "test")
    packed = pack(unused, none, data, ThreatModel(norm="Linf", eps=0.1))
    save_file(packed, path, metadata={"version": "1"})
