"""Which images a limit takes: by hand, and what is taken for a choice of somebody's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.selection import as_limit, in_turn, spaced


@pytest.mark.parametrize(
    ("total", "count", "want"),
    [
        (10, 4, [0, 3, 6, 9]),
        (8, 3, [0, 4, 7]),  # 3.5 goes to the even neighbour
        (5, 5, [0, 1, 2, 3, 4]),
        (100, 1, [0]),
    ],
)
def test_spaced_positions(total: int, count: int, want: list[int]) -> None:
    assert spaced(total, count).tolist() == want


@given(st.integers(1, 300), st.data())
def test_what_a_limit_takes_is_known_as_that(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, total))
    index = spaced(total, count).tolist()
    assert as_limit(index, [0] * count)
    assert as_limit(list(range(count)), data.draw(st.permutations(range(count))))


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        ([0, 3, 6, 9], [0, 1, 1, 0]),  # spaced, but the split is not sorted
        ([0, 3, 7, 9], [0, 0, 1, 1]),  # sorted, but one image was exchanged
        ([1, 2, 3], [0, 0, 0]),  # the first is missing
        ([0, 2, 1], [0, 0, 0]),  # another order
        ([3, 3, 3, 3, 3], [0] * 5),  # more images than the split can have
    ],
)
def test_what_somebody_chose_is_not(index: list[int], labels: list[int]) -> None:
    assert not as_limit(index, labels)


def test_classes_take_turns_and_short_ones_drop_out() -> None:
    labels = [2, 0, 0, 0, 1, 2, 0, 2]
    assert in_turn(labels).tolist() == [1, 4, 0, 2, 5, 3, 7, 6]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.data())
def test_a_stratified_part_is_as_even_as_the_classes_allow(
    labels: list[int], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(labels)))
    taken = [labels[i] for i in in_turn(labels)[:count]]
    most = max(taken.count(label) for label in set(labels))
    for label in set(labels):
        short = taken.count(label) < most - 1
        assert not short or taken.count(label) == labels.count(label)
