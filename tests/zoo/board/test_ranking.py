"""Ranks of all pairs at once against tests of other packages, pair by pair."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from statsmodels.stats.contingency_tables import mcnemar
from zoo_collection import Evaluated

from zoo.board import ranking
from zoo.board.ranking import Place, Sample, places
from zoo.records import Outcome, Proportion, Result, Verdict

Held = dict[int, bool]
"""Position of an image: whether the classifier held there."""


def result_like(base: Result, held: Held, **dataset: str) -> Result:
    """A result on these images, in this order."""
    robust = list(held.values())
    n = len(robust)
    examples = base.examples.model_copy(
        update={
            "index": list(held),
            "label": [0] * n,
            "clean_prediction": [0] * n,
            "verdict": [Verdict.ROBUST if r else Verdict.FOOLED for r in robust],
            "outcomes": {"a": [Outcome.HELD if r else Outcome.FOOLED for r in robust]},
        }
    )
    return base.model_copy(
        update={
            "examples": examples,
            "robust": Proportion.of(sum(robust), n),
            "dataset": base.dataset.model_copy(update=dataset),
        }
    )


def ranked(base: Result, *all_held: Held) -> list[tuple[int, int]]:
    """Rank and last rank of each."""
    found = places([Sample.of(result_like(base, held)) for held in all_held])
    return [(place.rank, place.last) for place in found]


def p_value_and_lead(a: Held, b: Held) -> tuple[float, float]:
    """By statsmodels and scipy; the lead is positive where `a` is ahead."""
    shared = a.keys() & b.keys()
    if not shared:
        table = [[sum(h.values()), len(h) - sum(h.values())] for h in (a, b)]
        lead = sum(a.values()) / len(a) - sum(b.values()) / len(b)
        return float(fisher_exact(table).pvalue), lead
    table = [[0, 0], [0, 0]]
    for at in shared:
        table[a[at]][b[at]] += 1
    return float(mcnemar(table, exact=True).pvalue), table[1][0] - table[0][1]


def pair_by_pair(group: list[Held]) -> list[tuple[int, int]]:
    """Ranks by their definition."""
    ahead, ties = [0] * len(group), [0] * len(group)
    for i, j in itertools.combinations(range(len(group)), 2):
        p, lead = p_value_and_lead(group[i], group[j])
        for at, behind in ((i, lead < 0), (j, lead > 0)):
            ties[at] += p >= 0.05
            ahead[at] += p < 0.05 and behind
    return [(1 + a, 1 + a + t) for a, t in zip(ahead, ties, strict=True)]


@st.composite
def groups(draw: st.DrawFn) -> list[Held]:
    """Results on all of 40 images, on a part of them, or on others altogether."""
    rng = draw(st.randoms(use_true_random=False))
    found = []
    for _ in range(draw(st.integers(1, 7))):
        share, start = draw(st.floats(0, 1)), draw(st.sampled_from([0, 0, 0, 20, 100]))
        images = list(range(start, start + draw(st.sampled_from([40, 40, 15]))))
        rng.shuffle(images)
        found.append({image: rng.random() < share for image in images})
    return found


@settings(max_examples=60, deadline=None)
@given(groups())
def test_ranks_are_those_of_each_pair(evaluated: Evaluated, group: list[Held]) -> None:
    assert ranked(evaluated.result, *group) == pair_by_pair(group)


@pytest.mark.parametrize("rows", [1, 3])
def test_blocks_change_nothing(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    rng = random.Random(0)
    group = [
        {i: rng.random() < 0.2 + 0.1 * at for i in range(at % 3, 50)} for at in range(8)
    ]
    want = ranked(evaluated.result, *group)
    assert want == pair_by_pair(group)
    monkeypatch.setattr(ranking, "ROWS", rows)
    assert ranked(evaluated.result, *group) == want


def test_pairing_finds_what_the_intervals_hide(evaluated: Evaluated) -> None:
    # 12 of 200 images decide, all for the second: overlapping intervals, no tie.
    weaker = {i: i < 100 for i in range(200)}
    stronger = {i: i < 112 for i in range(200)}
    first, second = (result_like(evaluated.result, h) for h in (weaker, stronger))
    assert first.robust.high > second.robust.low
    assert ranked(evaluated.result, weaker, stronger) == [(2, 2), (1, 1)]


def test_ranks_are_ranges_where_nothing_is_shown(evaluated: Evaluated) -> None:
    rng = random.Random(0)
    strong = {i: rng.random() < 0.7 for i in range(300)}
    nearly = {i: not h if i < 4 else h for i, h in strong.items()}
    weak = {i: h and i % 2 == 0 for i, h in strong.items()}
    assert ranked(evaluated.result, weak, strong, nearly) == [(3, 3), (1, 2), (1, 2)]


def test_the_shared_images_say_who_is_better(evaluated: Evaluated) -> None:
    # The second is better on the images that both have, and worse overall.
    first = {i: i >= 100 for i in range(1000)}
    second = {i: i % 2 == 0 for i in range(100)}
    assert ranked(evaluated.result, first, second) == [(2, 2), (1, 1)]


def test_folders_of_one_name_share_no_image(evaluated: Evaluated) -> None:
    held, lost = ({i: i < k for i in range(40)} for k in (24, 16))
    for hashes, want in (
        (("a", "a"), [Place(1, 1), Place(2, 2)]),  # eight images, all for the first
        (("a", "b"), [Place(1, 2), Place(1, 2)]),  # Fisher: p = 0.12
    ):
        results = [
            result_like(evaluated.result, h, name="imagefolder:x", sha256=sha * 64)
            for h, sha in zip((held, lost), hashes, strict=True)
        ]
        assert places([Sample.of(result) for result in results]) == want


def test_labels_tell_images_apart(evaluated: Evaluated) -> None:
    result = result_like(evaluated.result, {3: True, 1: False})
    sample = Sample.of(result)
    assert sample.keys.tolist() == sorted(sample.keys.tolist())
    assert sample.robust.tolist() == [False, True]  # 1 before 3
    relabelled = result.examples.model_copy(update={"label": [1, 1]})
    other = Sample.of(result.model_copy(update={"examples": relabelled}))
    assert not np.intersect1d(sample.keys, other.keys).size
