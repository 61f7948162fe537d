"""What decides which results a result is compared with: its images, battery, labels."""

from __future__ import annotations

from pathlib import Path

from zoo import datasets
from zoo.batteries import CUSTOM, shown
from zoo.datasets.base import Dataset
from zoo.datasets.loading import load_recorded
from zoo.errors import MissingDatasetError, UserError, VerificationError
from zoo.label_budget import LabelBudget
from zoo.records import Result
from zoo.recount import agree, holds
from zoo.selection import SELECTED, as_limit
from zoo.task_version import PROTOCOLS


def images(result: Result, data: Dataset) -> str:
    """The whole split, what a limit takes of it, or images of somebody's choice.

    Args:
        result: What is said of them.
        data: The images.

    Raises:
        VerificationError: one is listed twice, or they look like what a limit takes.
    """
    index, whole = result.examples.index, data.whole()
    holds("an image is listed twice", len(set(index)) == len(index))
    name = f"{data.name}/{data.split}"
    if index == list(range(len(whole))):
        return f"all {len(whole)} of {name}"
    if index == whole.take(len(index)).positions.tolist():
        return f"{len(index)} of {len(whole)} of {name}, by --limit"
    if as_limit(index, result.examples.label):
        raise VerificationError(
            f"the {len(index)} images look like what --limit takes, but of {name} it "
            "takes others"
        )
    return f"{SELECTED}: not ranked with other results"


def battery(result: Result) -> str:
    """What its name stands for; whose name lies, `zoo.recount` has refused."""
    if shown(result) == CUSTOM:
        return (
            f"{CUSTOM}: '{result.battery}' ({result.engines}) is no battery of "
            "robrep's; not ranked with other results"
        )
    names = ", ".join(run.name for run in result.attacks) or "no attack"
    return f"{result.battery} ({result.engines}): {names}"


def labels(result: Result, data_dir: Path | None, own_images: str | None = None) -> str:
    """The share of labels follows from how many training images the head was fitted
    on, and is written as nobody else would write it.

    Args:
        result: What is said of them.
        data_dir: Where datasets lie.
        own_images: Where a user's own are, as imagefolder:PATH.

    Raises:
        VerificationError: it does not, or the protocol has no such name.
        MissingDatasetError: the training images that a share is of are not here.
    """
    probe = result.probe
    if probe is None:
        return "no head was fitted"
    # Each spelling would be a ranking of its own.
    holds(f"there is no protocol '{probe.protocol}'", probe.protocol in PROTOCOLS)
    name, _, split = probe.train.rpartition("/")
    try:
        train = (
            datasets.load(own_images, split)
            if own_images
            else load_recorded(name, split, data_dir)
        )
    except UserError as error:
        if probe.labels is None:
            return f"not checked: {probe.train} is not here"
        raise MissingDatasetError(
            f"'{probe.labels}' labels decides what it is ranked with, and is a share "
            f"of {probe.train}: {error}"
        ) from None
    total = len(train)
    budget = LabelBudget.parse(probe.labels) if probe.labels else None
    used = budget.count(total) if budget else total
    words = f"{probe.labels or 'all'} labels"
    agree(f"images that the head was fitted on ({words})", probe.train_n, used)
    if budget and (budget.text != probe.labels or used == total):
        raise VerificationError(
            f"labels: '{probe.labels}' of {total} images is written "
            f"{'null' if used == total else budget.text}"
        )
    return f"{probe.labels or 'all'}: {used} of {total} images"
