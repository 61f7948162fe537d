"""Whether the images of all tasks of a suite are here, before any work."""

from __future__ import annotations

from pathlib import Path

from zoo import datasets
from zoo.datasets.derived_names import parts_of
from zoo.datasets.names import MARK, PLACES, split_name
from zoo.datasets.registry import get, registry
from zoo.errors import UserError
from zoo.suites.suite import Suite


def check_images(suite: Suite, data_dir: Path | None) -> None:
    """That each dataset can be read: without one task no model has a mean.

    Raises:
        UserError: some cannot; says which and why.
    """
    lacking: dict[str, UserError] = {}
    for task in suite.tasks:
        base = _base(task.dataset)
        if base not in lacking:
            try:
                for split in ("train", "test"):
                    datasets.load(base, split, data_dir=data_dir)
            except UserError as reason:
                lacking[base] = reason
    if lacking:
        reasons = "; ".join(map(str, lacking.values()))
        raise UserError(
            f"the suite {suite.name} needs images that cannot be read: {reasons}"
        )


def _base(name: str) -> str:
    """The dataset that a task is made of; of photographs with their size, as they
    cannot be read without."""
    base = split_name(name)[0]
    if base.startswith(PLACES):
        return name
    base = base if base in registry() else parts_of(base)[0]
    size = name.partition(MARK)[2]
    return f"{base}{MARK}{size}" if size and get(base).photographs else base
