"""What is measured of a classifier, on functions whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo import margins, soundness


class Map(nn.Module):
    """A function as a module."""

    def __init__(self, function: soundness.Logits) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _pixels(x: Tensor) -> Tensor:
    """The pixels as logits."""
    return x.flatten(1)


X = torch.tensor([[0.0, 0.2, 1.0], [0.5, 0.1, 0.3], [0.2, 0.2, 0.6]]).view(3, 1, 1, 3)


def test_margins_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    y = torch.tensor([0, 2])
    assert margins.margin(logits, y).tolist() == [1.5, -2.0]
    p = logits.double().softmax(dim=1)
    expected = torch.stack([p[0, 0] - p[0, 2], p[1, 2] - p[1, 1]])
    torch.testing.assert_close(margins.probability_margin(logits.double(), y), expected)
    torch.testing.assert_close(
        margins.cross_entropy(logits.double(), y), -p[[0, 1], y].log()
    )
    assert margins.spread(logits).tolist() == [3.0, 3.0]


def test_a_difference_is_relative_to_its_row_and_sees_what_is_no_number() -> None:
    nan, inf = torch.nan, torch.inf
    want = torch.tensor([[0.0, 2.0], [0.0, 256.0], [nan, 1.0], [nan, 1.0], [0.0, 1.0]])
    got = torch.tensor([[1.0, 2.0], [1.0, 256.0], [nan, 1.0], [0.0, 1.0], [0.0, inf]])
    assert margins.difference(want, got).tolist() == [0.5, 2**-8, 0.0, inf, inf]


def test_passes_that_differ_are_measured() -> None:
    answers = iter([0.0, 0.0, 0.5, 0.25])
    found = soundness.repeated(lambda x: _pixels(x) + next(answers), X, passes=4)
    torch.testing.assert_close(found, 0.5 / margins.spread(_pixels(X)))
    assert soundness.repeated(_pixels, X, passes=3).tolist() == [0.0] * 3


@pytest.mark.parametrize("place", [0, 1, 2])
def test_rows_that_depend_on_company_are_found_wherever_they_stand(place: int) -> None:
    def lonely(x: Tensor) -> Tensor:
        """One image changes where the batch is not whole."""
        hit = (x == X[place]).flatten(1).all(dim=1) & (len(x) < 3)
        return _pixels(x) * (1 + hit.float().unsqueeze(1))

    order = torch.tensor([2, 0, 1])
    found = soundness.in_other_company(lonely, X, order, alone=1)
    assert (found > soundness.AGREEMENT).tolist() == [i == place for i in range(3)]
    assert not soundness.in_other_company(_pixels, X, order, alone=16).any()


def test_probabilities_are_told_from_logits() -> None:
    rows = torch.tensor([[0.2, 0.8], [0.2, 0.7], [-0.5, 1.5]])
    assert soundness.probabilities(rows).tolist() == [True, False, False]


def test_a_gradient_is_there_or_not() -> None:
    square = soundness.input_gradient(Map(lambda x: _pixels(x) ** 2), X, torch.exp)
    assert square is not None
    torch.testing.assert_close(square, 2 * X * (X**2).exp())
    cut = Map(lambda x: _pixels(x).detach())
    assert soundness.input_gradient(cut, X, torch.exp) is None
    beside = Map(lambda x: torch.zeros(len(x), 3, requires_grad=True))
    assert soundness.input_gradient(beside, X, torch.exp) is None


def test_flat_and_broken_gradients() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, torch.nan], [1.0, -torch.inf]])
    assert soundness.flat(rows).tolist() == [True, False, False, False]
    assert soundness.broken(rows).tolist() == [False, False, True, True]


def test_slopes_agree_where_they_are_true() -> None:
    x = X.double()
    along = torch.ones_like(x) * torch.tensor([1.0, 2.0, 4.0])

    def error(function: soundness.Logits) -> Tensor:
        return soundness.slope_error(Map(function), x, along, 1e-5)

    assert float(error(lambda x: _pixels(x).sin()).max()) < 1e-8
    halved = error(lambda x: _pixels(x / 2 + (x / 2).detach()))
    torch.testing.assert_close(halved, torch.full_like(halved, 0.5))
    opposite = error(lambda x: _pixels(2 * x.detach() - x))
    torch.testing.assert_close(opposite, torch.full_like(opposite, 2.0))
    unknown = error(lambda x: _pixels(x + (x - x.detach()).abs().sqrt()))
    assert unknown.tolist() == [soundness.OPPOSITE] * 3
    with pytest.raises(RuntimeError, match="no graph"):
        error(lambda x: _pixels(x).detach())
