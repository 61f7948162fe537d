"""Runs on many and large images: chunks, journals and measurements stay bounded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from robrep_eval.attacks import pool
from robrep_eval.attacks.battery import build
from robrep_eval.attacks.pool import Journal
from robrep_eval.run.chunk import BatterySettings, _Journal
from robrep_eval.run.chunk_size import chunk_size
from robrep_eval.run.engine import run_battery
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset, from_array
from zoo.errors import UserError
from zoo.threat import ThreatModel


def _images(count: int, side: int) -> Dataset:
    one = np.zeros((1, 3, side, side), dtype=np.uint8)
    return from_array(
        np.broadcast_to(one, (count, 3, side, side)),
        np.arange(count) % 2,
        name="own",
        split="test",
        classes=["a", "b"],
    )


def _size(folder: Path, data: Dataset, world: int, attacks: str = "apgd-ce") -> int:
    battery = build(attacks, "robrep", norm="Linf", randomness="per-example")
    return chunk_size(folder, battery, data, most=512, world=world)


@pytest.mark.parametrize(
    ("count", "side", "world", "size"),
    [
        (10_000, 32, 1, 512),  # as it always was
        (50_000, 224, 1, 222),  # 128 MiB of float32
        (120, 32, 2, 16),  # the second process is not left idle
        (10_000, 32, 4, 512),
        (1000, 32, 2, 125),
    ],
)
def test_chunks_are_as_large_as_memory_and_processes_allow(
    tmp_path: Path, count: int, side: int, world: int, size: int
) -> None:
    data = _images(count, side)
    assert _size(tmp_path, data, world) == size
    assert _size(tmp_path, data, world + 3) == size, "as the run began"


def test_chunks_of_the_reference_and_of_older_runs_stay(tmp_path: Path) -> None:
    data = _images(120, 224)
    exact = build("apgd-ce", "robrep", norm="Linf", randomness="official-rng")
    for battery in (exact, build("standard", "reference", norm="Linf")):
        assert chunk_size(tmp_path, battery, data, most=100, world=2) == 100
    (tmp_path / "00000000-clean.safetensors").touch()
    assert _size(tmp_path, data, 2) == 512
    (tmp_path / "size.json").write_text("0")
    with pytest.raises(UserError, match="damaged"):
        _size(tmp_path, data, 2)


def test_a_journal_holds_of_proposals_what_is_no_clean_image(tmp_path: Path) -> None:
    x = torch.rand(40, 3, 16, 16)
    proposals = x.clone()
    proposals[[3, 7]] += 0.1
    rows, path = torch.arange(40), tmp_path / "a.journal"
    state = {"proposals": proposals, "row.point": torch.rand(5, 3, 16, 16)}
    _Journal(path, rows, x).save(state)
    assert path.stat().st_size < x.numel() * 4 / 2
    found = _Journal(path, rows, x).load()
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in state.items()
    }
    assert all(torch.equal(found[name], value) for name, value in state.items())
    assert _Journal(path, rows + 1, x).load() == {}


def test_saving_takes_a_twentieth_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def save(state: Any) -> None:
        clock[0] += 2

    journal = Journal(save=save, _last=clock[0])
    clock[0] += 5
    assert journal.due()
    journal.keep({})
    clock[0] += 39
    assert not journal.due()
    clock[0] += 1
    assert journal.due()


@pytest.mark.slow
def test_verdicts_and_adversarials_do_not_depend_on_chunks(
    robust_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    data = digits_test.subset(slice(24))
    threat = ThreatModel(norm="Linf", eps=0.1)
    battery = build("apgd-ce", "robrep", norm="Linf", randomness="per-example")
    found = [
        run_battery(
            robust_classifier,
            data,
            threat,
            battery,
            settings=BatterySettings(chunk_size=size),
            folder=tmp_path / str(size),
        )
        for size in (24, 7)
    ]
    assert found[0].examples == found[1].examples
