"""What a pretraining is said to cost follows from its recipe; nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain.estimate import estimate
from pretrain.recipe import validate
from pretrain.session import Surroundings
from pretrain.train import train

TINY = {
    "data": "digits",
    "arch": "resnet_s8",
    "arch_options": {"widths": [4, 8], "blocks": [1, 1]},
    "batch": 64,
    "limit": 300,
    "threat": {"norm": "Linf", "eps": 0.1},
    "attack": {"steps": 1},
    "monitor": {"every": 0},
}


def test_it_is_as_long_as_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = validate(
        {**TINY, "name": "tiny", "method": "simclr", "epochs": 2, "threat": None}
    )
    (found,) = estimate(recipe, Surroundings())
    assert not list(tmp_path.iterdir())
    assert (found.images, found.workload.epochs, found.workload.steps) == (300, 2, 8)
    assert found.seconds == pytest.approx(8 * found.step)
    assert "tiny: 300 images, 2 epochs of 4 steps, 12 passes" in found.lines()[0]
    folder = tmp_path / "run"
    train(recipe, folder, Surroundings())
    kept = (folder / "checkpoint.pt").stat().st_size
    assert found.disk < kept < 1.5 * found.disk + 100_000


def test_a_teacher_that_is_trained_first_is_counted_first() -> None:
    recipe = validate(
        {
            **TINY,
            "name": "student",
            "method": "deacl",
            "teacher": {"method": "simclr", "epochs": 3, "threat": None},
            "epochs": 1,
        }
    )
    teacher, student = estimate(recipe, Surroundings())
    assert teacher.name == "student-teacher"
    assert teacher.workload.steps == 12
    assert student.workload.teacher_passes == teacher.workload.passes
