"""Where robrep keeps downloads, and the environment variables that move it.

`ROBREP_HOME`: the folder (default: the platform's cache folder, `robrep/`).
`ROBREP_OFFLINE`: 1 forbids the network; `HF_HUB_OFFLINE=1` implies it.
"""

from __future__ import annotations

import os
from pathlib import Path

TRUE = {"1", "true", "yes", "on"}


def home() -> Path:
    """The folder for datasets and downloaded encoders; not created here."""
    if chosen := os.environ.get("ROBREP_HOME"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("robrep", appauthor=False)


def offline() -> bool:
    """True if the network must not be used."""
    return any(
        os.environ.get(name, "").lower() in TRUE
        for name in ("ROBREP_OFFLINE", "HF_HUB_OFFLINE")
    )
