"""Projections onto a hyperplane in the box, against linear programs and the peer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack import fab_projections
from scipy.optimize import linprog
from torch import Tensor

from robrep_eval.attacks import hyperplane
from robrep_eval.attacks.hyperplane import project
from zoo.ball import lengths
from zoo.threat import NORMS, Norm


def _case(seed: int, n: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points, some of their pixels at the bounds, and hyperplanes that may miss."""
    g = torch.Generator().manual_seed(seed)
    t = (torch.rand(n, dim, generator=g) * 1.4 - 0.2).clamp(0, 1)
    w = torch.randn(n, dim, generator=g)
    w[:, :: max(2, dim // 3)] = 0
    b = (w * t).sum(dim=1) + torch.randn(n, generator=g) * (0.5 + dim / 40)
    return t, w, b


def _smallest(t: Tensor, w: Tensor, b: Tensor, norm: Norm) -> float | None:
    """The least norm of an offset, by a linear program; None if there is no offset."""
    dim = len(t)
    # Variables: d, then the bound on |d| (Linf) or one per coordinate (L1).
    extra = 1 if norm == "Linf" else dim
    spread = np.ones((dim, 1)) if norm == "Linf" else np.eye(dim)
    inequality = np.block([[np.eye(dim), -spread], [-np.eye(dim), -spread]])
    found = linprog(
        np.concatenate([np.zeros(dim), np.ones(extra)]),
        A_ub=inequality,
        b_ub=np.zeros(2 * dim),
        A_eq=np.concatenate([w.numpy(), np.zeros(extra)])[None],
        b_eq=[float(b - w @ t)],
        bounds=[(-float(v), 1 - float(v)) for v in t] + [(0, None)] * extra,
    )
    return float(found.fun) if found.status == 0 else None


@pytest.mark.parametrize("norm", ["Linf", "L1"])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), dim=st.integers(2, 12))
def test_no_smaller_offset_exists(norm: Norm, seed: int, dim: int) -> None:
    t, w, b = _case(seed, 4, dim)
    d = project(t, w, b, norm)
    inside = t + d
    assert bool(((inside >= -1e-6) & (inside <= 1 + 1e-6)).all())
    for row in range(4):
        least = _smallest(t[row].double(), w[row].double(), b[row].double(), norm)
        if least is not None:
            assert float((w[row] * inside[row]).sum() - b[row]) == pytest.approx(
                0, abs=1e-5
            )
            got = float(lengths(d[row : row + 1], norm))
            assert got == pytest.approx(least, abs=2e-5)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), dim=st.sampled_from([3, 64, 300]))
def test_equals_the_peers_projection(norm: Norm, seed: int, dim: int) -> None:
    t, w, b = _case(seed, 16, dim)
    peer = getattr(fab_projections, f"projection_{norm.lower()}")
    want = peer(t.clone(), w.clone(), b.clone())
    torch.testing.assert_close(project(t, w, b, norm), want, rtol=1e-4, atol=2e-5)


def test_out_of_reach_goes_to_the_nearest_corner() -> None:
    t = torch.tensor([[0.25, 0.5]])
    w, b = torch.tensor([[1.0, -2.0]]), torch.tensor([9.0])
    for norm in NORMS:
        d = project(t, w, b, norm)
        torch.testing.assert_close(t + d, torch.tensor([[1.0, 0.0]]))


def test_zero_normal_moves_nothing() -> None:
    d = project(torch.rand(2, 5), torch.zeros(2, 5), torch.ones(2), "Linf")
    assert not bool(d.any())


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_asking_less_often_whether_all_are_done_changes_nothing(
    norm: Norm, monkeypatch: pytest.MonkeyPatch
) -> None:
    t, w, b = _case(3, 50, 200)
    often = project(t, w, b, norm)
    monkeypatch.setattr(hyperplane, "READ_EVERY", {})
    torch.testing.assert_close(project(t, w, b, norm), often, rtol=0, atol=0)
