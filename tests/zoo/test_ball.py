"""Geometry of the threat models against numerical optimisation and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.autopgd_base import APGDAttack
from scipy.optimize import minimize
from scipy.stats import beta, kstest
from torch import nn

from zoo.ball import lengths, project, project_l1, random_start, steepest
from zoo.threat import NORMS, Norm, ThreatModel

norms = st.sampled_from(NORMS)


def _case(seed: int, n: int = 6, dim: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    origin = torch.rand(n, 1, 3, dim // 3, generator=rng)
    # Some pixels on the border of the box, where projections go wrong first.
    origin = torch.where(origin < 0.2, 0.0, torch.where(origin > 0.8, 1.0, origin))
    return origin, origin + torch.randn(origin.shape, generator=rng)


@given(st.integers(0, 10_000), norms, st.floats(0.01, 5))
def test_projection_lands_inside_and_is_idempotent(
    seed: int, norm: Norm, eps: float
) -> None:
    origin, x = _case(seed)
    threat = ThreatModel(norm=norm, eps=eps)
    got = project(x, origin, threat)
    assert got.min() >= 0
    assert got.max() <= 1
    slack = threat.tolerance(tuple(x.shape[1:]))
    assert (lengths((got - origin).double(), norm) <= eps + slack).all()
    torch.testing.assert_close(project(got, origin, threat), got, rtol=0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 3))
def test_l1_projection_is_the_nearest_point(seed: int, eps: float) -> None:
    origin, x = (t[:1].double() for t in _case(seed, n=1, dim=6))
    got = project(x, origin, ThreatModel(norm="L1", eps=eps))
    base, target = origin.flatten().numpy(), x.flatten().numpy()
    # delta = up - down with up, down >= 0 makes the L1 ball linear for SLSQP.
    found = minimize(
        lambda v: float((((v[:6] - v[6:]) - (target - base)) ** 2).sum()),
        np.zeros(12),
        method="SLSQP",
        bounds=[(0, 1)] * 12,
        constraints=[
            {"type": "ineq", "fun": lambda v: eps - v.sum()},
            {"type": "ineq", "fun": lambda v: base + v[:6] - v[6:]},
            {"type": "ineq", "fun": lambda v: 1 - base - v[:6] + v[6:]},
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    ours = float((got - x).square().sum())
    assert ours <= found.fun + 1e-6


@given(st.integers(0, 10_000), st.floats(0.01, 0.5))
def test_linf_projection_is_clipping(seed: int, eps: float) -> None:
    origin, x = _case(seed)
    want = np.clip(np.clip(x.numpy(), origin.numpy() - eps, origin.numpy() + eps), 0, 1)
    got = project(x, origin, ThreatModel(norm="Linf", eps=eps))
    np.testing.assert_allclose(got.numpy(), want, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_starts_fill_the_ball_and_repeat(norm: Norm) -> None:
    x = torch.full((4000, 1, 2, 2), 0.5)
    threat = ThreatModel(norm=norm, eps=0.2)
    one, two = (
        random_start(x, threat, torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(one, two)
    radius = lengths(one - x, norm) / 0.2
    assert radius.max() <= 1 + 1e-5
    # Uniform in volume: P(radius <= r) = r^4 in four dimensions.
    for r in (0.5, 0.8, 0.95):
        assert float((radius <= r).float().mean()) == pytest.approx(r**4, abs=0.03)


@pytest.mark.parametrize("norm", NORMS)
def test_starts_have_the_marginals_of_the_uniform_distribution(norm: Norm) -> None:
    """In dimension d, of the unit ball: |x_i| is uniform in Linf, beta(1, d) in L1, and
    x_i^2 is beta(1/2, (d + 1) / 2) in L2; either sign is as likely."""
    x = torch.full((3000, 1, 2, 3), 0.5)
    threat = ThreatModel(norm=norm, eps=0.3)
    start = random_start(x, threat, torch.Generator().manual_seed(3))
    unit = ((start - x) / 0.3).flatten(1).double().numpy()
    size = np.abs(unit)
    share = {
        "Linf": size,
        "L2": beta(0.5, 3.5).cdf(size**2),
        "L1": beta(1, 6).cdf(size),
    }[norm]
    for pixel in range(6):
        assert kstest(share[:, pixel], "uniform").pvalue > 1e-3
        assert abs(np.mean(unit[:, pixel] > 0) - 0.5) < 0.04


@given(st.integers(0, 10_000), st.floats(0.01, 5))
def test_l2_projection_scales_the_offset(seed: int, eps: float) -> None:
    origin, x = _case(seed)
    got = project(x, origin, ThreatModel(norm="L2", eps=eps))
    delta = (x - origin).flatten(1).double().numpy()
    size = np.linalg.norm(delta, axis=1, keepdims=True)
    want = origin.flatten(1).numpy() + delta * np.minimum(1, eps / size)
    np.testing.assert_allclose(got.flatten(1).numpy(), want.clip(0, 1), atol=1e-5)


@given(st.integers(0, 10_000))
def test_l1_projection_takes_a_radius_for_each_row(seed: int) -> None:
    origin, x = _case(seed)
    radii = torch.linspace(0.1, 3, len(x)).unsqueeze(1)
    got = project_l1(x - origin, origin, radii)
    for row, eps in enumerate(radii.flatten().tolist()):
        one = slice(row, row + 1)
        want = project_l1((x - origin)[one], origin[one], eps)
        torch.testing.assert_close(got[one], want, rtol=0, atol=1e-6)


def test_l1_projection_of_a_photograph_uses_the_whole_ball() -> None:
    """150,528 pixels: sums in single precision would miss the radius."""
    rng = torch.Generator().manual_seed(0)
    origin = torch.rand(1, 3, 224, 224, generator=rng)
    far = torch.randn(origin.shape, generator=rng)
    size = project_l1(far, origin, 12.0).double().abs().sum()
    assert float(size) == pytest.approx(12, abs=1e-4)


@given(st.integers(0, 10_000), norms)
def test_lengths_are_norms(seed: int, norm: Norm) -> None:
    delta = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    order = {"Linf": float("inf"), "L2": 2, "L1": 1}[norm]
    want = torch.linalg.vector_norm(delta.flatten(1), order, dim=1)
    torch.testing.assert_close(lengths(delta, norm), want)


@given(st.integers(0, 10_000))
def test_no_direction_of_linf_or_l2_rises_faster(seed: int) -> None:
    """Its product with the gradient is the dual norm: L1 of Linf, L2 of L2."""
    gradient = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    for norm, dual in (("Linf", "L1"), ("L2", "L2")):
        rise = (steepest(gradient, norm) * gradient).flatten(1).sum(dim=1)  # type: ignore[arg-type]
        torch.testing.assert_close(rise, lengths(gradient, dual))  # type: ignore[arg-type]


class _Seen(nn.Module):
    """Smooth random logits of 20x20 images; keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(400, 32), nn.Tanh(), nn.Linear(32, 5)
        self.layers = nn.Sequential(nn.Flatten(), *layers)
        self.images: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.images.append(x.detach().clone())
        return self.layers(x)  # type: ignore[no-any-return]


def test_l1_ascent_goes_where_the_peers_goes() -> None:
    """The first steps of pyautoattack's L1 APGD, whose sparsity is then constant: from
    a start that has moved 60 of 400 pixels, it is 60 / 1.5 of 400, a tenth."""
    torch.manual_seed(0)
    model = _Seen()
    x, threat = torch.rand(8, 1, 20, 20), ThreatModel(norm="L1", eps=6.0)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    moved = torch.rand(8, 400).argsort(dim=1) < 60
    start = torch.where(moved.view_as(x), x + 0.1 * (0.5 - x).sign(), x)
    model.images.clear()
    peer = APGDAttack(model, norm="L1", eps=6.0, n_iter=100, loss="ce", device="cpu")
    peer.init_hyperparam(x)
    peer.attack_single_run(x, y, start.clone())
    theirs = model.images[:5]  # the start and four steps, before its first adaptation
    point = start
    for want in theirs:
        torch.testing.assert_close(point, want, rtol=0, atol=1e-5)
        leaf = point.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(leaf), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        point = project(point + threat.eps * steepest(gradient, "L1"), x, threat)


@given(st.integers(0, 10_000), norms)
def test_steepest_direction_has_unit_length(seed: int, norm: Norm) -> None:
    gradient = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    step = steepest(gradient, norm)
    torch.testing.assert_close(lengths(step, norm), torch.ones(5))
    torch.testing.assert_close(steepest(gradient * 2.0**-30, norm), step)
    assert ((step * gradient).flatten(1).sum(dim=1) > 0).all()
    assert steepest(torch.zeros(1, 1, 4, 4), norm).abs().sum() == 0
