"""Units of the bound and of label-free measures, and how older records are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robrep_eval import evaluate
from robrep_eval.measures.base import Finished, Measurement
from robrep_eval.measures.bound import EstimatedBound
from robrep_eval.measures.label_free import WithoutLabels
from robrep_eval.measures.measure import missing
from zoo.datasets.base import Dataset
from zoo.errors import UserError, VerificationError
from zoo.evidence_file import read_claims
from zoo.measurements import measurement
from zoo.records import Result, with_measurements
from zoo.result_file import write_result
from zoo.verification import load_named_classifier, verify_folder
from zoo.whitening import PLAIN, WHITENED, said_metric

MEASURES: tuple[Measurement[Any], ...] = (
    EstimatedBound(steps=5, metric=WHITENED),
    WithoutLabels(steps=2, metric=WHITENED),
)
WIDTH = 12


def module() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), nn.Tanh())


def part(train: Dataset, start: int, stop: int) -> tuple[Tensor, Tensor]:
    rows = slice(start, stop)
    return train.images(rows), train.labels[rows]


def measured(train: Dataset, count: int, output: Path | None = None) -> Result:
    return evaluate(
        module(),
        part(train, 300, 300 + count),
        train=part(train, 0, 300),
        eps=0.05,
        l2=0.01,
        attacks="fgsm",
        measure=MEASURES,
        output=output,
    )


def test_units_are_told_and_too_few_images_refused(digits_train: Dataset) -> None:
    result = measured(digits_train, 40)
    found = result.measurements
    assert found.bound is not None
    assert found.label_free is not None
    assert said_metric(found.bound) == said_metric(found.label_free) == WHITENED
    assert "whitened features" in EstimatedBound.told(found.bound, result)
    with pytest.raises(UserError, match="more images than features: 12 images"):
        measured(digits_train, WIDTH)


def test_a_run_in_whitened_units_is_verified_and_its_units_are_no_claim(
    digits_train: Dataset, tmp_path: Path
) -> None:
    result = measured(digits_train, 40, tmp_path / "run")
    bound, images = result.measurements.bound, part(digits_train, 300, 340)
    assert bound is not None
    for units, wrong in ((PLAIN, "bound"), ("furlongs", "units 'furlongs'")):
        settings = {**bound.settings, "metric": units}
        told = result.measurements.model_copy(
            update={"bound": bound.model_copy(update={"settings": settings})}
        )
        write_result(tmp_path / "run", result.model_copy(update={"measurements": told}))
        with pytest.raises(VerificationError, match=wrong):
            verify_folder(tmp_path / "run", model=module(), dataset=images)
    write_result(tmp_path / "run", result)
    assert verify_folder(tmp_path / "run", model=module(), dataset=images)


def test_records_without_units_are_plain_and_are_not_taken_for_whitened(
    digits_train: Dataset, tmp_path: Path
) -> None:
    result = measured(digits_train, 40, tmp_path / "run")
    data = digits_train.subset(slice(300, 340))
    finished = Finished(
        result=result,
        classifier=load_named_classifier(tmp_path / "run", result, module()),
        data=data,
        claims=lambda: read_claims(tmp_path / "run", result, data),
        train=lambda: digits_train,
    )
    assert missing(MEASURES, finished) == []
    older = {}
    for one in MEASURES:
        record = measurement(result, one.name, one.record)
        assert record is not None
        kept = {k: v for k, v in record.settings.items() if k != "metric"}
        older[one.name] = record.model_copy(update={"settings": kept})
        assert said_metric(older[one.name]) == PLAIN
    before = replace(finished, result=with_measurements(result, older))
    assert missing(MEASURES, before) == list(MEASURES)
    in_plain = [replace(one, metric=PLAIN) for one in MEASURES]  # type: ignore[call-arg]
    assert missing(in_plain, before) == []
