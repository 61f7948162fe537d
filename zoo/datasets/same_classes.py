"""Whether a label means the same class in two datasets."""

from __future__ import annotations

from zoo.datasets.base import Dataset
from zoo.errors import UserError


def check_same_classes(train: Dataset, test: Dataset) -> None:
    """Raises `UserError` unless a label means the same class in both."""
    for data in (train, test):
        data.check_labelled()
    if train.classes == test.classes:
        return
    pairs = zip(train.classes, test.classes, strict=False)
    differs = [
        f"class {i} is '{a}' and '{b}'" for i, (a, b) in enumerate(pairs) if a != b
    ]
    counts = f"they have {len(train.classes)} and {len(test.classes)} classes"
    raise UserError(
        f"the classes of {train.name}/{train.split} and {test.name}/{test.split} "
        f"differ: {differs[0] if differs else counts}; give both the same classes, in "
        "one order"
    )
