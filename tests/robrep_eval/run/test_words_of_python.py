"""What people give to the functions by mistake, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from robrep_eval import evaluate, fit_probe
from zoo.errors import UserError

X, Y = torch.rand(12, 1, 8, 8), torch.arange(12) % 3
MODULE = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train": (X, Y), "limit": "ten"},
            "limit must be a whole number of at least 1, not 'ten'",
        ),
        (
            {"train": (X, Y), "limit": True},
            "limit must be a whole number of at least 1, not True",
        ),
        ({}, r"that the probe of 'own' is to be fitted on \(train=\)"),
    ],
)
def test_the_mistake_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(MODULE, (X, Y), eps=0.1, attacks="fgsm", measure=(), **options)


def test_a_probe_is_fitted_on_images_by_their_name() -> None:
    classifier, record = fit_probe(MODULE, "digits", test="digits")
    assert (classifier.classes, record.train_n) == (10, 1437)
    assert record.knn_accuracy is not None
