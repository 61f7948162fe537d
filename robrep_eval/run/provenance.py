"""Where a result comes from: versions, source revision, device."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from zoo._version import __version__
from zoo.errors import UserError
from zoo.records import Provenance

STATED = "ROBREP_REVISION"
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyautoattack",
    "adversarial-robustness-toolbox",
    "robustbench",
    "timm",
)


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Of those that are installed; by default of all that can change a figure."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def revision() -> str | None:
    """Commit of robrep's source tree, "+" if changed since; None when installed.

    ROBREP_REVISION says it where the sources lie without their repository.

    Raises:
        UserError: it is no commit.
    """
    if stated := os.environ.get(STATED):
        if not re.fullmatch("[0-9a-f]{40}", stated):
            raise UserError(f"{STATED}='{stated[:80]}' is no commit: 40 hex digits")
        return stated
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head, status = (
            subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + "+" * bool(status)


def provenance(device: str, command: list[str]) -> Provenance:
    """The record of this process."""
    import torch

    return Provenance(
        robrep=__version__,
        revision=revision(),
        versions=versions(),
        device=torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else "cpu",
        threads=torch.get_num_threads(),
        command=command,
    )
