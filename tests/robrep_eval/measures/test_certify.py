"""Smoothing against the closed form of a linear classifier, bounds against others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from statsmodels.stats.proportion import proportion_confint
from torch import Tensor, nn

from robrep_eval.measures.certify import (
    ABSTAINED,
    SmoothingSettings,
    certify_smoothing,
    lower_bound,
    noisy_probe,
    noisy_votes,
    radius_of,
)
from zoo.classifier import Classifier
from zoo.datasets.base import from_array
from zoo.errors import UserError

SHAPE = (1, 2, 3)
WEIGHT = torch.tensor([0.5, -1.0, 2.0, 0.25, -0.5, 1.0])


def linear_classifier(bias: float = 0.0) -> Classifier:
    """Class 1 iff w . x + b > 0: smoothing it leaves its decision as it is."""
    head = nn.Linear(6, 2)
    with torch.no_grad():
        head.weight.copy_(torch.stack([-WEIGHT, WEIGHT]))
        head.bias.copy_(torch.tensor([-bias, bias]))
    return Classifier(nn.Flatten(), head, classes=2, shape=SHAPE)


def images(n: int, spread: float = 0.02) -> Tensor:
    """Near mid-grey, so that noise of 0.05 is never clipped and the form is exact."""
    rng = torch.Generator().manual_seed(0)
    return 0.5 + spread * torch.randn(n, *SHAPE, generator=rng)


def test_radii_approach_the_true_distance_of_a_linear_classifier() -> None:
    # Under Gaussian noise p = Phi(d / sigma), so sigma Phi^-1(p) is d, the distance to
    # the hyperplane: the certificate must stay below it and come near.
    settings = SmoothingSettings(sigma=0.05, n0=100, n=20_000)
    x = images(40)
    bias = -float(WEIGHT.sum()) / 2
    classifier = linear_classifier(bias)
    signed = (x.flatten(1) @ WEIGHT + bias) / WEIGHT.norm()
    y = (signed > 0).long()
    found = certify_smoothing(
        classifier, x, y, settings=settings, eps=0.02, probe="linear"
    )
    distance = signed.abs().numpy()
    sure = np.array(found.prediction) != ABSTAINED
    radius = np.array(found.radius)
    assert sure.sum() > 25
    assert np.all(np.array(found.prediction)[sure] == y.numpy()[sure])
    assert np.all(radius <= distance + 1e-3)  # one in a thousand may exceed
    # What the bound costs: an unlucky draw of the votes (one in 100,000), bounded by
    # statsmodels' interval.
    p = norm.cdf(distance / settings.sigma)
    votes = binom.ppf(1e-5, settings.n, p)
    allowed = proportion_confint(votes, settings.n, alpha=0.002, method="beta")[0]
    floor = settings.sigma * norm.ppf(np.clip(allowed, 0.5, 1 - 1e-9))
    assert np.all(radius[sure] >= floor[sure] - 1e-6)
    assert found.abstained == int((~sure).sum())


def test_counts_of_the_record_agree_with_its_rows() -> None:
    settings = SmoothingSettings(sigma=0.05, n=500)
    x, classifier = images(30), linear_classifier(-float(WEIGHT.sum()) / 2)
    y = torch.arange(30) % 2  # about half of them wrong
    found = certify_smoothing(classifier, x, y, settings=settings, eps=0.1, probe="")
    right = np.array(found.prediction) == y.numpy()
    radius = np.array(found.radius)
    assert found.smoothed.k == right.sum()
    assert found.average_radius == pytest.approx((radius * right).sum() / 30)
    for r, share in zip(found.curve.radius, found.curve.certified, strict=True):
        assert share.k == int((right & (radius > r)).sum())
    assert found.curve.certified[0].k == found.smoothed.k


@pytest.mark.parametrize(("k", "n"), [(99, 100), (100, 100), (51, 100), (0, 10)])
def test_the_lower_bound_is_clopper_pearson(k: int, n: int) -> None:
    # A two-sided interval at 2 alpha has the one-sided bound for its lower end.
    want = proportion_confint(k, n, alpha=0.002, method="beta")[0]
    want = 0.0 if k == 0 else want
    assert lower_bound(k, n, 0.001) == pytest.approx(want, abs=1e-12)


def test_a_bare_majority_abstains() -> None:
    settings = SmoothingSettings(sigma=0.5, n=100)
    assert radius_of(55, 100, settings) == 0.0
    assert radius_of(100, 100, settings) == pytest.approx(
        0.5 * norm.ppf(0.001 ** (1 / 100)), rel=1e-9
    )


def test_votes_are_complete_and_do_not_depend_on_the_batch_size() -> None:
    classifier, x = linear_classifier(), images(5)
    tables = []
    for batch in (7, 1000):
        settings = SmoothingSettings(sigma=1.0, n=50, batch_size=batch)
        rng = torch.Generator().manual_seed(4)
        tables.append(noisy_votes(classifier, x, 50, 2, settings, rng, "cpu"))
    assert tables[0].sum(dim=1).tolist() == [50] * 5
    shares = tables[0][:, 1] / 50 - tables[1][:, 1] / 50
    assert float(shares.abs().max()) < 0.5  # other draws, the same distribution


def test_the_noisy_probe_is_more_certain_under_noise() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    pixels = rng.integers(90, 165, (200, *SHAPE))
    pixels[:, 0, 0, 0] = np.where(labels == 1, 130, 125)  # exact, lost in noise
    pixels[:, 0, 1, :] += np.where(labels == 1, 30, -30)[:, None]
    data = from_array(
        pixels.astype(np.uint8), labels, name="toy", split="train", classes=["a", "b"]
    )
    settings = SmoothingSettings(sigma=0.25, n=300)
    found = noisy_probe(nn.Flatten(), data, shape=SHAPE, settings=settings, l2=1e-3)
    head = found.linear
    assert head is not None
    useful = (head.weight[1] - head.weight[0]).abs()
    assert float(useful[3:].min()) > float(useful[:3].max())
    certificate = certify_smoothing(
        found,
        data.images(slice(0, 50)),
        data.labels[:50],
        settings=settings,
        eps=0.1,
        probe="noisy",
    )
    assert certificate.smoothed.value > 0.5


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"n": 0}, {"alpha": 1.0}, {"n0": 0}])
def test_bad_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError):
        SmoothingSettings(**wrong)  # type: ignore[arg-type]
