"""Where a user's own images lie: noted beside a run or an encoder, never published."""

from __future__ import annotations

from pathlib import Path

from zoo.datasets.names import FOLDER, HUB, PLACES, parts, shaped_name, split_name
from zoo.errors import UserError
from zoo.files import read_json, write_json
from zoo.paths import user_path

LOCAL = "local.json"
"""Holds {"dataset": "imagefolder:/ABSOLUTE/PATH"}; true on this machine alone."""


def note(folder: Path, name: str) -> None:
    """Notes beside a run or an encoder where its images are.

    Args:
        folder: Of the run or the encoder.
        name: As typed; nothing is noted of a dataset that has a name by itself.
    """
    base, reading = split_name(name)
    if not base.startswith(PLACES):
        return
    kind, path, chosen = parts(base)
    if kind != HUB or Path(path).exists():
        path = str(user_path(path).resolve())
    here = f"{kind}{path}{chosen}"
    whole = shaped_name(here, reading) if reading else here
    write_json(folder / LOCAL, {"dataset": whole})


def noted(folder: Path) -> str | None:
    """imagefolder:PATH as `note` wrote it, or None.

    Raises:
        UserError: the file is none of robrep's.
    """
    if not (folder / LOCAL).is_file():
        return None
    content = read_json(folder / LOCAL)
    name = content.get("dataset") if isinstance(content, dict) else None
    if not isinstance(name, str) or not name.startswith(PLACES):
        raise UserError(
            f"{folder / LOCAL} does not say where images are; remove it, and name "
            f"them ({FOLDER}PATH)"
        )
    return name
