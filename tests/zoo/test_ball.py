"""Geometry of the threat models against numerical optimisation and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from zoo.ball import lengths, project, random_start, steepest
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


@given(st.integers(0, 10_000), norms)
def test_steepest_direction_has_unit_length(seed: int, norm: Norm) -> None:
    gradient = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    step = steepest(gradient, norm)
    torch.testing.assert_close(lengths(step, norm), torch.ones(5))
    assert ((step * gradient).flatten(1).sum(dim=1) > 0).all()
    assert steepest(torch.zeros(1, 1, 4, 4), norm).abs().sum() == 0
