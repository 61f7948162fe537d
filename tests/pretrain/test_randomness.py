"""Draws keyed by image: uniform, normal, and each image's own."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from pretrain import randomness
from pretrain.methods.base import _start
from pretrain.randomness import ImageGenerator
from zoo.ball import lengths
from zoo.threat import Norm, ThreatModel


def test_an_image_draws_the_same_whatever_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = ImageGenerator(3, "step", 5, torch.arange(40))
    first, twice = whole.uniform(40, 3, 2), whole.normal(80, 7)
    assert first.shape == (40, 3, 2)
    monkeypatch.setattr(randomness, "TOGETHER", 16)  # two images at a time
    few = torch.tensor([7, 39, 0])
    part = ImageGenerator(3, "step", 5, few)
    assert torch.equal(part.uniform(3, 3, 2), first[few])
    assert torch.equal(part.normal(6, 7), twice[torch.cat([few, 40 + few])])


def test_seeds_purposes_epochs_calls_and_images_draw_apart() -> None:
    images = torch.arange(8)
    same = ImageGenerator(0, "step", 0, images)
    tables = [
        same.uniform(8, 16),
        same.uniform(8, 16),
        ImageGenerator(1, "step", 0, images).uniform(8, 16),
        ImageGenerator(0, "norms", 0, images).uniform(8, 16),
        ImageGenerator(0, "step", 1, images).uniform(8, 16),
    ]
    values = torch.cat(tables).flatten()
    assert len(values.unique()) >= len(values) - 1  # of 2^24


def test_draws_have_their_distributions() -> None:
    draws = ImageGenerator(0, "step", 0, torch.arange(2000))
    assert stats.kstest(draws.uniform(2000, 20).flatten(), "uniform").pvalue > 1e-3
    assert stats.kstest(draws.normal(2000, 20).flatten(), "norm").pvalue > 1e-3


def test_rows_that_are_not_of_the_images_are_refused() -> None:
    with pytest.raises(ValueError, match="7 rows are not of 4 images"):
        ImageGenerator(0, "step", 0, torch.arange(4)).uniform(7, 1)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_starts_fill_the_ball(norm: Norm) -> None:
    x, threat = torch.full((4000, 1, 2, 2), 0.5), ThreatModel(norm=norm, eps=0.2)
    start = _start(x, threat, ImageGenerator(0, "step", 0, torch.arange(4000)))
    radius = lengths(start - x, norm) / 0.2
    assert radius.max() <= 1 + 1e-5
    # Uniform in volume: radius^4 is uniform in four dimensions.
    assert stats.kstest(radius.double().pow(4), "uniform").pvalue > 1e-3
