"""The re-check refuses every planted wrong adversarial."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.classifier import Classifier
from zoo.evidence import check_adversarials
from zoo.records import Outcome
from zoo.threat import NORMS, Norm, ThreatModel

THREAT = ThreatModel(norm="Linf", eps=0.1)


def _by_mean() -> Classifier:
    """Class 1 if the mean pixel exceeds 0.5, with a known boundary."""
    head = nn.Linear(4, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0] * 4, [0.25] * 4]))
        head.bias.copy_(torch.tensor([0.5, 0.0]))
    return Classifier(nn.Flatten(), head, classes=2, shape=(1, 2, 2))


def _check(x: Tensor, x_adv: Tensor, y: int) -> Outcome:
    labels = torch.full((len(x),), y)
    return check_adversarials(_by_mean(), x, x_adv, labels, THREAT).outcome[0]


CLEAN = torch.full((1, 1, 2, 2), 0.45)


def test_a_real_adversarial_counts() -> None:
    assert _check(CLEAN, CLEAN + 0.08, 0) is Outcome.FOOLED


def test_a_proposal_that_is_classified_correctly_means_the_example_held() -> None:
    assert _check(CLEAN, CLEAN + 0.02, 0) is Outcome.HELD


@pytest.mark.parametrize(
    "wrong",
    [
        CLEAN + 0.1001,  # outside the ball
        torch.full_like(CLEAN, torch.nan),
        torch.full_like(CLEAN, torch.inf),
    ],
)
def test_planted_wrong_adversarials_are_refused(wrong: Tensor) -> None:
    assert _check(CLEAN, wrong, 0) is Outcome.REFUSED


@pytest.mark.parametrize("pixel", [1.00001, -0.00001])
def test_pixels_outside_the_box_are_refused(pixel: float) -> None:
    x = torch.full((1, 1, 2, 2), float(pixel > 0.5))
    x_adv = x.clone()
    x_adv[0, 0, 0, 0] = pixel
    assert _check(x, x_adv, 0 if pixel > 0.5 else 1) is Outcome.REFUSED


def test_pixels_at_the_edges_of_the_box_count() -> None:
    x = torch.full((2, 1, 2, 2), 0.95)
    x[1] = 0.05
    x_adv = torch.stack([torch.ones(1, 2, 2), torch.zeros(1, 2, 2)])
    check = check_adversarials(_by_mean(), x, x_adv, torch.tensor([0, 1]), THREAT)
    assert check.outcome == [Outcome.FOOLED, Outcome.FOOLED]


@pytest.mark.parametrize("norm", NORMS)
def test_the_ball_is_measured_in_float64_with_a_stated_tolerance(norm: Norm) -> None:
    threat = ThreatModel(norm=norm, eps=0.1)
    x = torch.zeros(2, 1, 2, 2)
    step = {"Linf": 0.1, "L2": 0.05, "L1": 0.025}[norm]
    x_adv = torch.stack([x[0] + step, x[1] + step * 1.001])
    check = check_adversarials(_by_mean(), x, x_adv, torch.ones(2).long(), threat)
    assert check.outcome == [Outcome.FOOLED, Outcome.REFUSED]
    assert check.distance.dtype == torch.float64


def test_outcomes_that_depend_on_the_batch_are_undecided() -> None:
    class BatchDependent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[0.0, 1.0 if len(x) > 40 else -1.0]]).expand(len(x), 2)

    x = torch.rand(60, 1, 2, 2)
    check = check_adversarials(BatchDependent(), x, x, torch.zeros(60).long(), THREAT)
    assert set(check.outcome) == {Outcome.UNDECIDED}


def test_logits_that_are_not_finite_are_undecided() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 2), torch.nan)

    check = check_adversarials(Broken(), CLEAN, CLEAN, torch.tensor([0]), THREAT)
    assert check.outcome == [Outcome.UNDECIDED]


@pytest.mark.parametrize("finite_above", [True, False])
def test_logits_have_to_be_finite_at_both_batch_sizes(finite_above: bool) -> None:
    class SometimesBroken(nn.Module):
        """Wrong for label 1 at either size: of NaN alone the first is the largest."""

        def forward(self, x: Tensor) -> Tensor:
            finite = (len(x) > 40) is finite_above
            logits = torch.tensor([[1.0, 0.0]]).expand(len(x), 2)
            return logits if finite else logits * torch.nan

    x = torch.rand(60, 1, 2, 2)  # a batch of 60, then of 37 and 23
    labels = torch.ones(60).long()
    check = check_adversarials(SometimesBroken(), x, x, labels, THREAT)
    assert set(check.outcome) == {Outcome.UNDECIDED}
