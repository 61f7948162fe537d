"""Few labels: balanced, reproducible, and refused where they make no sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robrep_eval.probes.few_labels import balanced_shares, few_labels
from zoo.datasets.base import Dataset, from_array
from zoo.errors import UserError
from zoo.label_budget import LabelBudget

SIZES = st.lists(st.integers(1, 40), min_size=2, max_size=12)


def labelled(sizes: list[int], seed: int) -> Dataset:
    """Images that say their own number, in random order of classes."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    images = np.arange(len(labels), dtype=np.uint16).reshape(-1, 1, 1, 1)
    return from_array(
        images,
        labels,
        name="numbers",
        split="train",
        classes=[str(i) for i in range(len(sizes))],
        levels=65535,
    )


@given(SIZES, st.data(), st.integers(0, 99))
def test_classes_give_equally_as_far_as_they_can(
    sizes: list[int], data: st.DataObject, seed: int
) -> None:
    total = data.draw(st.integers(0, sum(sizes)))
    shares = balanced_shares(sizes, total, torch.Generator().manual_seed(seed))
    assert sum(shares) == total
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    for share, size in zip(shares, sizes, strict=True):
        # Only a class that has given everything may give less than another, but one.
        assert share == size or share >= max(shares) - 1


@given(SIZES, st.data(), st.integers(0, 99))
def test_the_part_is_balanced_and_a_larger_one_holds_it(
    sizes: list[int], data: st.DataObject, seed: int
) -> None:
    train = labelled(sizes, seed)
    least = len(sizes) + 1
    if len(train) < least:
        return
    small = data.draw(st.integers(least, len(train)))
    large = data.draw(st.integers(small, len(train)))
    part, more = (few_labels(train, str(n), seed) for n in (small, large))
    counts = torch.bincount(part.labels, minlength=len(sizes)).tolist()
    assert (len(part), len(more)) == (small, large)
    assert min(counts) >= 1
    assert set(part.positions.tolist()) <= set(more.positions.tolist())
    # Images and labels still belong together.
    numbers = part.integers(slice(None)).flatten().tolist()
    assert numbers == part.positions.tolist()
    assert part.labels.tolist() == train.labels[part.positions].tolist()


def test_a_share_of_the_digits(digits_train: Dataset) -> None:
    one, ten = (few_labels(digits_train, share, 3) for share in ("1%", "10%"))
    assert (len(one), len(ten)) == (14, 144)
    assert sorted(torch.bincount(one.labels).tolist()) == [1] * 6 + [2] * 4
    assert set(torch.bincount(ten.labels).tolist()) == {14, 15}
    again, other = few_labels(digits_train, "10%", 3), few_labels(digits_train, "10%")
    assert again.positions.tolist() == ten.positions.tolist()
    assert other.positions.tolist() != ten.positions.tolist()
    assert few_labels(digits_train, None) is digits_train
    assert len(few_labels(digits_train, "100%")) == 1437


def test_texts_are_read_as_people_write_them() -> None:
    assert LabelBudget.parse(" 1.0% ").text == "1%"
    assert LabelBudget.parse("0500").text == "500"
    assert LabelBudget.parse("12.5%").count(1000) == 125


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ten", "neither a share such as 10% nor a number"),
        ("0.1", "neither a share"),
        ("0%", "out of range"),
        ("101%", "out of range"),
        ("nan%", "neither a share such as"),
        ("0", "out of range"),
        ("-3", "out of range"),
    ],
)
def test_bad_amounts_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LabelBudget.parse(text)


def test_impossible_amounts_are_refused(digits_train: Dataset) -> None:
    with pytest.raises(UserError, match="has 1437 images"):
        few_labels(digits_train, "2000")
    with pytest.raises(UserError, match="need at least 11"):
        few_labels(digits_train, "10")
