"""Stable directions: a closed form, invariance, and the run that ends in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pretrain import stable
from pretrain.recipe import Recipe
from pretrain.stable import UNIT
from pretrain.train import train
from robrep_eval.probes.linear import features
from zoo import datasets
from zoo.datasets.base import Dataset, from_tensors
from zoo.encoder import load_encoder
from zoo.errors import UserError
from zoo.records import Card, read_record
from zoo.threat import ThreatModel

CPU = torch.device("cpu")
THREAT = ThreatModel(norm="L2", eps=0.1)


class Linear(nn.Module):
    """g(x) = A x."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.T


@pytest.fixture(scope="module")
def images() -> Dataset:
    """Far from 0 and 1, so that the box cuts no attack; pixels vary unequally."""
    draws = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.01, 0.06, 16).view(4, 4)
    x = 0.5 + spread * torch.randn(1000, 1, 4, 4, generator=draws)
    return from_tensors(x, torch.arange(1000) % 2, name="pixels", classes=("a", "b"))


def found(matrix: Tensor, images: Dataset) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    rows, moved = stable.directions(
        Linear(matrix), images, THREAT, steps=3, draws=draws, device=CPU
    )
    assert bool((moved.diff() >= 0).all())
    return rows


def test_the_order_is_that_of_pixel_variance(images: Dataset) -> None:
    """Under L2 every pixel moves alike, so those of large variance move least."""
    rows = found(torch.eye(16), images)
    strongest = rows.abs().argmax(dim=1)
    assert rows.shape == (16, 16)
    assert strongest[:4].min() > 9
    assert strongest[-1] == 0


def test_kept_features_are_uncorrelated_with_unit_variance(images: Dataset) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(8, 16)
    z = features(Linear(matrix), images) @ found(matrix, images).T
    torch.testing.assert_close(torch.cov(z.T), torch.eye(8), atol=1e-3, rtol=0)


def test_it_sees_the_span_of_features_not_their_coordinates(images: Dataset) -> None:
    torch.manual_seed(0)
    matrix, mix = torch.randn(8, 16), torch.randn(8, 8)
    first, second = found(matrix, images)[:3], found(mix @ matrix, images)[:3]
    # Rows that act on pixels; cosines of principal angles between the two spans.
    spans = [
        torch.linalg.qr(rows.T).Q for rows in (first @ matrix, second @ mix @ matrix)
    ]
    assert torch.linalg.svdvals(spans[0].T @ spans[1]).min() > 0.97


def test_constant_features_are_left_out(images: Dataset) -> None:
    matrix = torch.eye(16)[:5].clone()
    matrix[3] = 0
    assert found(matrix, images).shape == (4, 5)


@given(
    st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=20),
    st.floats(0.1, 10.0),
    st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40)
def test_a_penalty_on_features_is_one_on_displacement(
    moved: list[float], price: float, seed: int
) -> None:
    """By a probe v of the directions, written as one of the standardised features."""
    draws = torch.Generator().manual_seed(seed)
    lambdas = torch.tensor(sorted(moved), dtype=torch.float64)
    mixed = stable.mixture(lambdas.float(), price, draws).double()
    deviation = mixed.square().sum(dim=1).sqrt()  # of features, as Cov(s) = 1
    torch.testing.assert_close(deviation, torch.ones_like(deviation), rtol=0, atol=0.1)
    v = torch.randn(len(lambdas), generator=draws, dtype=torch.float64)
    v[0] = 0
    head = torch.linalg.solve((mixed / deviation[:, None]).T, v)
    penalty = UNIT * float(head.square().sum())
    assert penalty == pytest.approx(price * float(lambdas @ v.square()), rel=0.15)


def test_directions_that_hardly_move_count_as_equally_stable() -> None:
    """Displacements below 1e-4 of the largest are priced as that: by hand, k = 4."""
    moved, price = torch.tensor([1e-12, 1e-9, 0.02, 1.0]), 400.0
    squares = [0.0, 1e4, 50.0, 1.0]  # 1 / lambda, the second at the floor of 1e-4
    squares[0] = 4 * price / UNIT - sum(squares)
    mixed = stable.mixture(moved, price, torch.Generator().manual_seed(0)).double()
    scale = sum(squares) / 4
    # Q is orthogonal, so the columns' lengths are the weights.
    expected = torch.tensor(squares, dtype=torch.float64) / scale
    torch.testing.assert_close(mixed.square().sum(dim=0), expected, rtol=1e-4, atol=0)


def test_the_least_price_is_that_of_all_directions_but_the_first() -> None:
    """k directions cost PENALTY / k * sum_{i>1} 1 / lambda_i; a hair more is enough."""
    moved = torch.tensor([1e-3, 0.25, 0.5, 1.0])
    least = UNIT / 4 * (4 + 2 + 1)
    draws = torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match=f"costs {least:.2g} in any case"):
        stable.mixture(moved, least * 0.999, draws)
    assert stable.mixture(moved, least * 1.001, draws).isfinite().all()


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "method": "pgd-at",
            "arch": "resnet_s8_grid",
            "arch_options": {"widths": [8, 8], "blocks": [1, 1], "stem_stride": 2},
            "threat": {"norm": "Linf", "eps": 0.1},
            "attack": {"steps": 1},
            "stable": {"keep": 6, "images": 300, "steps": 2},
            "limit": 600,
            "epochs": 2,
            "monitor": {"every": 1, "limit": 50, "fit": 200, "steps": 1},
            **changes,
        }
    )


def test_a_run_ends_in_them(tmp_path: Path) -> None:
    with_end = load_encoder(train(recipe(), tmp_path / "a") / "model.safetensors")
    plain = recipe(stable=None)
    without = load_encoder(train(plain, tmp_path / "b") / "model.safetensors")
    assert (with_end.dim, without.dim) == (6, 32)
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        end = with_end.backbone.end.weight  # type: ignore[union-attr]
        torch.testing.assert_close(with_end(x), without(x) @ end.T)
    again = load_encoder(train(recipe(), tmp_path / "c") / "model.safetensors")
    for one, other in zip(
        with_end.state_dict().values(), again.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_with_a_price_features_share_one_direction(tmp_path: Path) -> None:
    """And span what separate ones do."""
    ends = {"keep": 6, "images": 300, "steps": 2}
    plain = load_encoder(train(recipe(), tmp_path / "a") / "model.safetensors")
    priced = recipe(stable={**ends, "price": 1})
    mixed = load_encoder(train(priced, tmp_path / "b") / "model.safetensors")
    data = datasets.load("digits", "train").take(300)
    s, z = features(plain, data).double(), features(mixed, data).double()
    assert torch.corrcoef(z.T).abs().min() > 0.9
    torch.testing.assert_close(z.std(dim=0), torch.ones(6).double(), rtol=0, atol=0.2)
    fitted = torch.linalg.lstsq(s, z).solution
    torch.testing.assert_close(s @ fitted, z, rtol=0, atol=1e-4)


def test_no_more_is_kept_than_varies(tmp_path: Path) -> None:
    """Features of 20 images vary in 19 directions at most."""
    folder = train(recipe(stable={"keep": 30, "images": 20}), tmp_path / "run")
    encoder = load_encoder(folder / "model.safetensors")
    assert 10 <= encoder.dim <= 19
    assert encoder.spec.options["linear_end"] == encoder.dim
    assert read_record(folder / "card.json", Card).dim == encoder.dim


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stable": {"keep": 33}}, "a linear end keeps 1 to 32 features .* not 33"),
        ({"method": "simclr", "threat": None}, "stable needs a threat model"),
        ({"arch_options": {"linear_end": 3}}, "leave arch_options.linear_end out"),
        (
            {"stable": {"keep": 6, "price": 1e-9}},
            "price is 1e-09, but .* set it higher",
        ),
    ],
)
def test_what_cannot_be_done_is_told(
    changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    if "arch_options" not in changes:
        changes = {"monitor": {"every": 0}, **changes}
    with pytest.raises(UserError, match=reason):
        train(recipe(**changes), tmp_path / "run")


def test_the_card_counts_its_passes(tmp_path: Path) -> None:
    folder = train(recipe(), tmp_path / "run")
    training = read_record(folder / "card.json", Card).training
    epoch = 1 + 1 + 1 + 2  # a step forward and back, the trained pass and its backward
    end = 2 * 2 + 2  # steps forward and back, features before and after
    assert training.passes == pytest.approx(2 * epoch + end * 300 / 540)
