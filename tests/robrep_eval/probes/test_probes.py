"""The linear probe against scikit-learn, and what it must never look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from robrep_eval.probes.choice import split
from robrep_eval.probes.linear import ProbeSettings, features, fit_probe
from robrep_eval.probes.logistic import fit_linear
from robrep_eval.probes.neighbours import knn_accuracy
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset, from_tensors
from zoo.encoder import Encoder, EncoderSpec, fingerprint
from zoo.errors import UserError


def _standardised(z: torch.Tensor) -> torch.Tensor:
    return (z - z.mean(dim=0)) / z.std(dim=0, correction=0)


def test_solution_is_scikit_learns(digits_train: Dataset) -> None:
    z = digits_train.images(slice(400))[:, 0, 1:7, 2:6].flatten(1)
    y = digits_train.labels[:400]
    l2 = 1e-2
    head = fit_linear(z, y, classes=10, l2=l2)
    # scikit-learn minimises C * sum of losses + ||V||^2 / 2.
    other = LogisticRegression(C=1 / (l2 * len(z)), tol=1e-10, max_iter=10_000)
    other.fit(_standardised(z.double()).numpy(), y.numpy())
    want = torch.from_numpy(
        other.predict_log_proba(_standardised(z.double()).numpy())
    ).float()
    torch.testing.assert_close(head(z).log_softmax(dim=1), want, rtol=1e-3, atol=1e-3)


def test_features_that_share_a_direction_are_solved_in_few_steps(
    digits_train: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of encoders with a price do."""
    z = digits_train.images(slice(400))[:, 0, 1:7, 2:6].flatten(1)
    y = digits_train.labels[:400]
    z = z.double() + 1e3 * z[:, 10:11].double()
    solve, passes = scipy.optimize.minimize, []

    def counted(*given: Any, **options: Any) -> Any:
        found = solve(*given, **options)
        passes.append(found.nfev)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(scipy.optimize, "minimize", counted)
        head = fit_linear(z, y, classes=10, l2=1e-5)
    other = LogisticRegression(C=1 / (1e-5 * len(z)), tol=1e-10, max_iter=100_000)
    other.fit(_standardised(z).numpy(), y.numpy())
    want = torch.from_numpy(other.predict_log_proba(_standardised(z).numpy()))
    double = nn.functional.linear(z, head.weight.double(), head.bias.double())
    torch.testing.assert_close(double.log_softmax(dim=1), want, rtol=1e-2, atol=1e-2)
    assert len(passes) == 1
    assert passes[0] < 150, "in plain coordinates it takes 232"


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_gradient_vanishes_at_the_solution(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(60, 5, generator=rng) * torch.tensor([1, 10, 0.1, 1, 1])
    y = torch.randint(0, 3, (60,), generator=rng)
    head = fit_linear(z, y, classes=3, l2=0.1)
    scale = z.std(dim=0, correction=0)
    v = (head.weight * scale).double().requires_grad_()
    bias = (head.bias + head.weight @ z.mean(dim=0)).double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(_standardised(z.double()) @ v.T + bias, y)
    loss = loss + 0.05 * v.square().sum()
    loss.backward()
    assert v.grad is not None
    assert bias.grad is not None
    assert v.grad.abs().max() < 1e-5
    assert bias.grad.abs().max() < 1e-5


def test_fitting_is_deterministic_and_leaves_the_encoder_alone(
    digits_train: Dataset, plain_classifier: Classifier
) -> None:
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    before = fingerprint(encoder)
    part = digits_train.subset(slice(500))
    one, record = fit_probe(encoder, part)
    two, _ = fit_probe(encoder, part)
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(encoder) == before
    assert record.train_n == 500
    assert record.validation_accuracy is not None
    assert record.parameters["l2"] in ProbeSettings().penalties


def test_penalty_is_chosen_without_test_data(
    digits_train: Dataset, digits_test: Dataset, plain_classifier: Classifier
) -> None:
    """Permuting the test labels changes the sanity figure and nothing else."""
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    part = digits_train.subset(slice(300))
    shuffled = from_tensors(
        digits_test.images(slice(None)),
        digits_test.labels.roll(1),
        name="shuffled",
        classes=digits_test.classes,
    )
    one, honest = fit_probe(encoder, part, test=digits_test)
    two, other = fit_probe(encoder, part, test=shuffled)
    assert fingerprint(one) == fingerprint(two)
    assert honest.parameters == other.parameters
    assert honest.knn_accuracy is not None
    assert other.knn_accuracy is not None
    assert honest.knn_accuracy > 0.9 > 0.3 > other.knn_accuracy


def test_validation_split_is_stratified_and_disjoint(digits_train: Dataset) -> None:
    fitting, held = split(digits_train.labels, 0.2, seed=0)
    assert not set(fitting.tolist()) & set(held.tolist())
    assert len(fitting) + len(held) == len(digits_train)
    share = torch.bincount(digits_train.labels[held]) / torch.bincount(
        digits_train.labels
    )
    assert share.min() > 0.18
    assert share.max() < 0.22


def test_knn_is_scikit_learns_on_unit_features() -> None:
    rng = torch.Generator().manual_seed(0)
    z, y = torch.randn(80, 6, generator=rng), torch.arange(80) % 4
    z_test = z[:30] + 0.05 * torch.randn(30, 6, generator=rng)
    unit, unit_test = (torch.nn.functional.normalize(t, dim=1) for t in (z, z_test))
    # On the sphere the squared Euclidean distance is twice the cosine distance.
    other = KNeighborsClassifier(20, weights=lambda d: np.exp(-(d**2) / 2 / 0.1))
    other.fit(unit.numpy(), y.numpy())
    want = float(other.score(unit_test.numpy(), y[:30].numpy()))
    assert knn_accuracy(z, y, z_test, y[:30]) == pytest.approx(want)


def test_encoders_and_data_that_do_not_fit_are_refused(digits_train: Dataset) -> None:
    wrong = Encoder(EncoderSpec(arch="resnet_s28", shape=(1, 28, 28)))
    with pytest.raises(UserError, match=r"\(1, 28, 28\).*digits has \(1, 8, 8\)"):
        fit_probe(wrong, digits_train)
    small = Encoder(EncoderSpec(arch="resnet_s8", shape=(1, 8, 8)))
    ones = (digits_train.labels == 1).nonzero().flatten()
    with pytest.raises(UserError, match="no image of class '0', '2', '3'"):
        fit_probe(small, digits_train.subset(ones))
    with torch.no_grad():
        small.backbone.conv1.weight.fill_(torch.nan)  # type: ignore[union-attr,operator]
    with pytest.raises(UserError, match="NaN or infinite features for 9 of 9 images"):
        features(small, digits_train.subset(slice(9)))
