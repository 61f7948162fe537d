"""Draws: uniform, independent of the batch, and the reference's own where asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robrep_eval.attacks.noise import Official, PerExample, _uniforms, _words

IDS = torch.arange(4000)
FIRST = [[16007733, 3813611], [3470657, 1563158], [2118931, 13424026]]
FIRST_SHARED = [13181976, 11312471, 14831810]
"""What the first version drew, which computed with numpy."""


def _table(kind: str = "uniform", run: int = 0) -> np.ndarray:
    draw = PerExample(0, "attack").images(kind, run, IDS, (16,))  # type: ignore[arg-type]
    return draw(IDS).numpy()


def test_uniform_over_all_draws_and_over_each_position() -> None:
    table = _table()
    assert table.min() >= 0
    assert table.max() < 1
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
    # A flaw of one position or of one example would drown in the whole.
    by_position = [stats.kstest(column, "uniform").pvalue for column in table.T]
    assert min(by_position) > 1e-3 / len(by_position)


def test_joint_distribution_of_neighbours_is_uniform() -> None:
    table = _table()
    pairs = {
        "positions": (table[:, :-1].ravel(), table[:, 1:].ravel()),
        "examples": (table[:-1].ravel(), table[1:].ravel()),
        "runs": (table.ravel(), _table(run=1).ravel()),
    }
    for name, (a, b) in pairs.items():
        counts, _, _ = np.histogram2d(a, b, bins=16, range=[[0, 1], [0, 1]])
        assert stats.chisquare(counts.ravel()).pvalue > 1e-3, name


def test_every_bit_is_fair() -> None:
    bits = (_table() * 2**24).astype(np.int64).ravel()
    ones = np.array([(bits >> k & 1).mean() for k in range(24)])
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(len(bits))


def test_normal_draws_are_normal() -> None:
    assert stats.kstest(_table("normal").ravel(), "norm").pvalue > 1e-3


def test_steps_differ_and_are_uniform() -> None:
    draw = PerExample(0, "square").steps(0, IDS, 5000, 3)
    first = draw(IDS, torch.zeros_like(IDS))
    later = draw(IDS, torch.full_like(IDS, 4999))
    assert not bool((first == later).any())
    assert stats.kstest(later.numpy().ravel(), "uniform").pvalue > 1e-3


@given(
    rows=st.lists(st.integers(0, 3999), min_size=1, max_size=30),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_draw_belongs_to_its_example(rows: list[int], seed: int) -> None:
    noise = PerExample(seed, "attack")
    tasks = torch.tensor(rows)
    alone = noise.images("uniform", 2, IDS, (3, 2))(tasks)
    subset = noise.images("uniform", 2, IDS[tasks], (3, 2))(torch.arange(len(rows)))
    torch.testing.assert_close(alone, subset, rtol=0, atol=0)


@pytest.mark.parametrize("other", [PerExample(1, "a"), PerExample(0, "b")])
def test_seeds_and_attacks_draw_differently(other: PerExample) -> None:
    ids = torch.arange(100)
    a = PerExample(0, "a").images("uniform", 0, ids, (8,))(ids)
    b = other.images("uniform", 0, ids, (8,))(ids)
    assert not bool((a == b).any())


def test_official_draws_are_those_of_the_seeded_global_generator() -> None:
    ids = torch.arange(5)
    noise = Official(7)
    start = noise.images("normal", 0, ids, (1, 4, 4))(ids)
    table = noise.steps(0, ids, 50, 3)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        torch.testing.assert_close(start, torch.randn(5, 1, 4, 4), rtol=0, atol=0)
        for query in range(50):
            want = torch.cat([torch.rand(1), torch.rand(1), torch.rand(1)])
            got = table(ids[:2], torch.tensor([query, query]))
            torch.testing.assert_close(got, want.expand(2, 3), rtol=0, atol=0)


def splitmix(state: int) -> tuple[int, int]:
    """The published generator in Python's own integers: next state, and number."""
    full = 2**64
    state = (state + 0x9E3779B97F4A7C15) % full
    z = state
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % full
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % full
    return state, z ^ (z >> 31)


@given(st.integers(0, 2**64 - 1))
def test_words_are_those_of_splitmix64(start: int) -> None:
    state, want = start, []
    for _ in range(5):
        state, number = splitmix(state)
        want.append((number >> 40) * 2.0**-24)
    got = _uniforms(_words(start), 5)[0].tolist()
    assert got == want


def test_draws_are_those_of_the_first_version() -> None:
    """Bit for bit, in place of a stored run: a seed keeps its figures."""
    noise = PerExample(2**63 + 5, "square")
    ids = torch.tensor([0, 7, 59999])
    got = noise.steps(3, ids, 10, 2)(torch.arange(3), torch.tensor([0, 9, 4999]))
    assert (got.double() * 2**24).long().tolist() == FIRST
    shared = noise.shared(2)(-1)
    assert [int(shared() * 2**24) for _ in range(3)] == FIRST_SHARED
