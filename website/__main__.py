"""Builds the site into `site/` (or a folder named): `python -m website [FOLDER]`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> None:
    """Builds the site; a warning, such as a link that leads nowhere, is an error.

    Args:
        folder: What is in it is replaced.

    Raises:
        mkdocs.exceptions.Abort: after a warning.
    """
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    config = load_config(
        str(ROOT / "mkdocs.yml"), site_dir=str(folder.resolve()), strict=True
    )
    config.plugins.on_startup(command="build", dirty=False)
    build_site(config)
    config.plugins.on_shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site")
