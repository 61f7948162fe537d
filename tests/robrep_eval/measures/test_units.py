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
from zoo.feature_metric import PLAIN, WHITENED
from zoo.measurements import measurement
from zoo.records import Result, with_measurements
from zoo.result_file import write_result
from zoo.verification import load_named_classifier, verify_folder
from zoo.whitening import whitening

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
    assert found.bound.feature_metric == found.label_free.feature_metric == WHITENED
    assert "whitened features" in EstimatedBound.told(found.bound, result)
    assert "whitened features" in WithoutLabels.told(found.label_free, result)
    with pytest.raises(UserError, match="more images than features: 12 images"):
        measured(digits_train, WIDTH)


def test_a_ready_made_classifier_has_no_features_to_whiten(
    digits_train: Dataset,
) -> None:
    """Told before any attack."""
    ready = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    images = part(digits_train, 0, 40)
    for options in ({"bound": True}, {"bound": False, "label_free": True}):
        with pytest.raises(UserError, match="a ready-made classifier has none"):
            evaluate(
                ready, images, eps=0.05, attacks="fgsm", kind="logits",
                feature_metric=WHITENED, **options,  # type: ignore[arg-type]
            )  # fmt: skip


def test_by_default_four_images_are_taken_for_each_whitened_feature(
    digits_train: Dataset,
) -> None:
    """Of WIDTH + 1 all distances would be equal, sqrt(2 (WIDTH + 1))."""
    whole = part(digits_train, 300, 300 + 6 * WIDTH)
    result = evaluate(
        module(), whole, train=part(digits_train, 0, 300), eps=0.05, l2=0.01,
        attacks="fgsm", health="none", feature_metric=WHITENED,
    )  # fmt: skip
    assert result.measurements.bound is not None
    assert result.measurements.bound.settings["images"] >= 4 * WIDTH
    z = module()(digits_train.images(slice(WIDTH + 1)))
    found = whitening(z)
    distances = torch.pdist(z.double() @ found.forward.T)
    expected = torch.full_like(distances, (2 * (WIDTH + 1)) ** 0.5)
    torch.testing.assert_close(distances, expected)


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
        assert older[one.name].feature_metric == PLAIN
    before = replace(finished, result=with_measurements(result, older))
    assert missing(MEASURES, before) == list(MEASURES)
    in_plain = [replace(one, metric=PLAIN) for one in MEASURES]  # type: ignore[call-arg]
    assert missing(in_plain, before) == []
