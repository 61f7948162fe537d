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

PROTOCOLS = {"SLF": 2, "SLF-R": 1, "ALF": 1, "AFF": 1}
"""Today's version of each."""
_TO_ONE = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
GRIDS = {
    ("SLF", 1): _TO_ONE,
    ("SLF", 2): (1e-9, 1e-8, 1e-7, 1e-6, *_TO_ONE),
    ("SLF-R", 1): (1e-9, 1e-8, 1e-7, 1e-6, *_TO_ONE),
}
"""Penalties that a version chooses among. The first grid of SLF ended where encoders
were often best when clean, and so flattered those that were made for its end."""


def task_version(dataset: str, probe: ProbeRecord | None) -> TaskVersion:
    """The version of what this robrep measures.

    Args:
        dataset: Name as in records.
        probe: How the head was fitted, if it was.
    """
    row = find(dataset)
    return TaskVersion(
        dataset=row.version if row else None,
        probe=_probe_version(probe) if probe else None,
    )


def _probe_version(probe: ProbeRecord) -> int | None:
    """Today's, unless the penalties are those of an older one."""
    return _version_of_grid(probe) or PROTOCOLS.get(probe.protocol)


def _version_of_grid(probe: ProbeRecord) -> int | None:
    """The version whose penalties the record states, if there is one."""
    stated = set(grid(probe))
    for (protocol, version), penalties in GRIDS.items():
        if protocol == probe.protocol and stated == set(penalties):
            return version
    return None


def grid(probe: ProbeRecord) -> list[float]:
    """Penalties that held-out images could choose among, ascending; none if they did
    not choose."""
    stated = probe.parameters.get("penalties")
    if stated is None:  # in version 1 all were tried
        tried = probe.parameters.get("validation_accuracy")
        stated = list(tried) if isinstance(tried, dict) else []
    try:
        found = sorted(map(float, stated))
    except (TypeError, ValueError):
        return []
    return found if len(found) > 1 else []


def end_of_grid(probe: ProbeRecord) -> str:
    """A warning if the penalty that was chosen is the last one on its side, or ""."""
    known, chosen = grid(probe), probe.parameters.get("l2")
    if not known or chosen not in (known[0], known[-1]):
        return ""
    end = "smallest" if chosen == known[0] else "largest"
    return (
        f"The probe's penalty {chosen:g} is the {end} of those to choose from; the "
        "best one may lie beyond."
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
    row, probe = find(result.dataset.name), result.probe
    now = TaskVersion(
        dataset=row.version if row else None,
        probe=PROTOCOLS.get(probe.protocol) if probe else None,
    )
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
    by_grid = _version_of_grid(probe) if probe else None
    if by_grid not in (None, found.probe):
        raise VerificationError(
            f"task: version {found.probe} of its probe is stated, but the penalties "
            f"are those of version {by_grid}"
        )
    words = [f"{name} {n}" for name, n in found if n is not None]
    return ", ".join(words) or "images and classifier of its own, no version"
