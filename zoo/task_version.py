"""Versions of tasks: which figures may stand beside one another.

A task is a dataset, read in one way, and a protocol by which a head is fitted to it.
Whoever changes either so that the same command gives another figure raises its number
here, or in the dataset's row, and results of different versions are no longer ranked
together. Attacks need none: a change of a battery is a new name (`zoo.batteries`).
Imports no torch.
"""

from __future__ import annotations

from zoo.datasets.registry import find
from zoo.errors import VerificationError
from zoo.records import ProbeRecord, Result, TaskVersion

PROTOCOLS = {"SLF": 1, "ALF": 1, "AFF": 1}
"""Today's version of each."""


def task_version(dataset: str, probe: ProbeRecord | None) -> TaskVersion:
    """The version of what this robrep measures.

    Args:
        dataset: Name as in records.
        probe: How the head was fitted, if it was.
    """
    row = find(dataset)
    return TaskVersion(
        dataset=row.version if row else None,
        probe=PROTOCOLS.get(probe.protocol) if probe else None,
    )


def version_of(result: Result) -> TaskVersion:
    """The version that a result has; before they were noted, all were the first."""
    if result.task is not None:
        return result.task
    now = task_version(result.dataset.name, result.probe)
    return TaskVersion(
        dataset=None if now.dataset is None else 1,
        probe=None if now.probe is None else 1,
    )


def shown(version: TaskVersion) -> str:
    """ "" for the first version, else such as "dataset 2, probe 1"."""
    if (version.dataset or 1) == (version.probe or 1) == 1:
        return ""
    return ", ".join(f"{name} {n}" for name, n in version if n is not None)


def check_version(result: Result) -> str:
    """What a verifier says of it.

    Raises:
        VerificationError: a version that this robrep does not know, or of a part that
            the result does not have.
    """
    found = version_of(result)
    now = task_version(result.dataset.name, result.probe)
    for (name, stated), (_, known) in zip(found, now, strict=True):
        if (stated is None) != (known is None):
            raise VerificationError(
                f"task: version {stated} of its {name} is stated, but it "
                + ("has none" if known is None else "has one")
            )
        if stated is not None and known is not None and stated > known:
            raise VerificationError(
                f"task: version {stated} of its {name} is stated, and this robrep "
                f"knows {known} at most; get a newer one"
            )
    words = [f"{name} {n}" for name, n in found if n is not None]
    return ", ".join(words) or "images and classifier of its own, no version"
