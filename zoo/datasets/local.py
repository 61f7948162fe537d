"""Where a user's own images lie: noted beside a run or an encoder, never published.

A note is sealed (HMAC-SHA-256) with a key in `ROBREP_HOME`: one that comes with a
folder of somebody else's opens nothing here.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from zoo.datasets.names import FOLDER, HUB, PLACES, parts, shaped_name, split_name
from zoo.errors import UserError
from zoo.files import read_json, write_json
from zoo.paths import home, user_path

LOCAL = "local.json"
"""Holds {"dataset": "imagefolder:/ABSOLUTE/PATH", "seal": "..."}; true here alone."""
KEY = "key"
"""In `ROBREP_HOME`, for its owner alone."""


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
    write_json(folder / LOCAL, {"dataset": whole, "seal": _seal(whole)})


def noted(folder: Path) -> str | None:
    """imagefolder:PATH as `note` wrote it here; None without a note of this user's.

    Raises:
        UserError: the file is none of robrep's.
    """
    if not (folder / LOCAL).is_file():
        return None
    content = read_json(folder / LOCAL)
    name, seal = (
        content.get(key) if isinstance(content, dict) else None
        for key in ("dataset", "seal")
    )
    if not isinstance(name, str) or not name.startswith(PLACES):
        raise UserError(
            f"{folder / LOCAL} does not say where images are; remove it, and name "
            f"them ({FOLDER}PATH)"
        )
    if not isinstance(seal, str) or not (home() / KEY).is_file():
        return None
    same = hmac.compare_digest(seal.encode(errors="replace"), _seal(name).encode())
    return name if same else None


def _seal(name: str) -> str:
    """Hexadecimal; makes the key if there is none yet."""
    path = home() / KEY
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        own = path.with_name(f".{KEY}.{os.getpid()}")
        own.touch(mode=0o600)
        own.write_text(secrets.token_hex(32))
        own.replace(path)
    key = path.read_bytes()
    return hmac.digest(key, name.encode(errors="surrogatepass"), "sha256").hex()
