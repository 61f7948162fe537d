"""Paths as people type them, and where robrep keeps downloads.

`ROBREP_HOME`: the folder (default: the platform's cache folder, `robrep/`).
`ROBREP_OFFLINE`: 1 forbids the network; `HF_HUB_OFFLINE=1` implies it.
"""

from __future__ import annotations

import os
from pathlib import Path

from zoo.errors import UserError

TRUE = {"1", "true", "yes", "on"}


def user_path(text: str) -> Path:
    """A path as people type it, with ~; raises `UserError` if there can be none."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except RuntimeError:
        raise UserError(f"'{text}': no such user; write the folder out") from None
    except (OSError, ValueError) as error:  # too long, or not to be looked into
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"'{text[:80]}' is no path here: {reason}") from None
    return path


def home() -> Path:
    """The folder for datasets and downloaded encoders; not created here."""
    if chosen := os.environ.get("ROBREP_HOME"):
        return user_path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("robrep", appauthor=False)


def offline() -> bool:
    """True if the network must not be used."""
    return any(
        os.environ.get(name, "").lower() in TRUE
        for name in ("ROBREP_OFFLINE", "HF_HUB_OFFLINE")
    )


def safe_name(text: str) -> str:
    """Every character that is unsafe in a path replaced."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text).strip(".")
