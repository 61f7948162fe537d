"""Few labels: a class-balanced part of a training set, the same for every encoder."""

from __future__ import annotations

import torch

from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.label_budget import LabelBudget


def few_labels(train: Dataset, labels: str | None, seed: int = 0) -> Dataset:
    """A class-balanced part of a training split.

    Every class gives the same number of images, give or take one; a class that has
    fewer gives all it has, and the others make up for it. The order within a class is
    fixed by the seed, so that a larger budget only adds images to each class's share.

    Args:
        train: Training split.
        labels: See `LabelBudget.parse`; None for all.
        seed: Which images.

    Raises:
        UserError: more images than there are, or too few to give each class one and
            to hold one out.
    """
    if labels is None:
        return train
    total = LabelBudget.parse(labels).count(len(train))
    if total > len(train):
        raise UserError(
            f"--labels {labels}: {train.name}/{train.split} has {len(train)} images"
        )
    if total <= len(train.classes):
        raise UserError(
            f"--labels {labels} leaves {total} of the {len(train)} images of "
            f"{train.name}/{train.split}; its {len(train.classes)} classes need at "
            f"least {len(train.classes) + 1}, one each and one to choose settings on"
        )
    generator = torch.Generator().manual_seed(seed)
    members = [
        (train.labels == label).nonzero().flatten()
        for label in range(len(train.classes))
    ]
    shuffled = [own[torch.randperm(len(own), generator=generator)] for own in members]
    shares = balanced_shares([len(own) for own in members], total, generator)
    chosen = [own[:share] for own, share in zip(shuffled, shares, strict=True)]
    return train.subset(torch.cat(chosen).sort().values)


def balanced_shares(
    sizes: list[int], total: int, generator: torch.Generator
) -> list[int]:
    """How many of `total` each class gives, as equal as the sizes allow.

    Args:
        sizes: Images of each class.
        total: At most their sum.
        generator: Decides which classes give one more.
    """
    shares = [0] * len(sizes)
    while left := total - sum(shares):
        unfilled = [i for i, size in enumerate(sizes) if shares[i] < size]
        each = left // len(unfilled)
        if not each:
            order = torch.randperm(len(unfilled), generator=generator)[:left]
            unfilled = [unfilled[i] for i in order.tolist()]
        for i in unfilled:
            shares[i] += min(max(each, 1), sizes[i] - shares[i])
    return shares
