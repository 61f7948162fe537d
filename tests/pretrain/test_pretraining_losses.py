"""Losses against loops written from the papers, and against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from pretraining import contrast_by_loops
from torch import Tensor

from pretrain.losses import (
    Spread,
    against,
    cosine_loss,
    distances,
    kl,
    multi_positive,
    nt_xent,
)


def _rows(count: int, n: int, d: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n + d)
    return [torch.randn(n, d, generator=generator).double() for _ in range(count)]


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_the_formula_of_the_paper(temperature: float) -> None:
    a, b = _rows(2, 5, 3)
    expected = contrast_by_loops([a, b], temperature)
    assert float(nt_xent(a, b, temperature=temperature)) == pytest.approx(expected)


def test_nt_xent_of_equal_rows_is_log_of_the_others() -> None:
    a = torch.ones(4, 3)
    assert float(nt_xent(a, a, temperature=0.5)) == pytest.approx(math.log(7))


def test_nt_xent_equals_lightly() -> None:
    lightly = pytest.importorskip("lightly.loss")
    a, b = (v.float().requires_grad_() for v in _rows(2, 6, 4))
    ours = nt_xent(a, b, temperature=0.3)
    theirs = lightly.NTXentLoss(temperature=0.3)(a, b)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, [a, b]), torch.autograd.grad(theirs, [a, b])
    )


@pytest.mark.parametrize("count", [2, 3, 4])
def test_multi_positive_is_the_formula_of_the_paper(count: int) -> None:
    views = _rows(count, 4, 3)
    expected = contrast_by_loops(views, 0.5)
    assert float(multi_positive(views, temperature=0.5)) == pytest.approx(expected)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_against_fixed_views_is_the_same_loss_with_the_same_gradient(
    count: int,
) -> None:
    *fixed, moving = _rows(count, 5, 3)
    moving.requires_grad_()
    whole = multi_positive([*fixed, moving], temperature=0.3)
    found = against(fixed, temperature=0.3)(moving)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(
        torch.autograd.grad(found, moving), torch.autograd.grad(whole, moving)
    )


def test_kl_is_zero_for_equal_logits_and_torchs_otherwise() -> None:
    p, q = _rows(2, 6, 4)
    assert float(kl(p, p).abs().max()) == 0
    expected = F.kl_div(q.log_softmax(1), p.softmax(1), reduction="none").sum(dim=1)
    torch.testing.assert_close(kl(p, q), expected)


def test_cosine_loss() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    other = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    expected = torch.tensor([-1.0, -math.sqrt(0.5), 1.0])
    torch.testing.assert_close(cosine_loss(z, other), expected)


@pytest.mark.parametrize(
    ("distance", "expected"), [("squared", 12.5), ("l2", math.sqrt(12.5))]
)
def test_distances_are_per_coordinate(distance: str, expected: float) -> None:
    z, other = torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)
    found = distances(z, other, distance)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_l2_distance_has_a_gradient_at_zero() -> None:
    z = torch.zeros(1, 3, requires_grad=True)
    distances(z, torch.zeros(1, 3), "l2").sum().backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_spread_standardises() -> None:
    (z,) = _rows(1, 200, 5)
    z = z * torch.tensor([1.0, 2, 3, 4, 5]) + 7
    found = Spread.of(z).standardise(z)
    assert float(found.mean(dim=0).abs().max()) < 1e-12
    # The floor is 1e-4 of the largest variance: at most 1e-4 * 25 / 2 here.
    torch.testing.assert_close(
        found.std(dim=0, unbiased=False), torch.ones(5).double(), rtol=2e-3, atol=0
    )


def test_shrinking_the_features_changes_neither_displacement_nor_its_gradient() -> None:
    z, z_adv = _rows(2, 30, 4)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def displacement(factor: Tensor) -> Tensor:
        clean, moved = factor * z, factor * z_adv
        spread = Spread.of(clean)
        return distances(
            spread.standardise(moved), spread.standardise(clean), "squared"
        ).mean()

    torch.testing.assert_close(displacement(scale), displacement(0.1 * scale))
    (slope,) = torch.autograd.grad(displacement(scale), scale)
    assert abs(float(slope)) < 1e-10


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: nt_xent(a, b, temperature=0.1),
        lambda a, b: multi_positive([a, b, b.flip(0)], temperature=0.1),
        lambda a, b: against([a, b.flip(0)], temperature=0.1)(b),
        lambda a, b: distances(
            Spread.of(b).standardise(a), Spread.of(b).standardise(b), "squared"
        ),
        cosine_loss,
        kl,
    ],
)
def test_losses_keep_their_precision_under_autocast(
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    a, b = (v.bfloat16() for v in _rows(2, 6, 4))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), loss(a.double(), b.double()), rtol=1e-5, atol=1e-5
    )
