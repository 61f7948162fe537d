"""Shell completion of encoder names: quick and silent, nothing rather than late."""

from __future__ import annotations

import contextlib
from threading import Thread

SECONDS = 2.0
"""After which somebody who pressed Tab has stopped waiting."""


def encoder_names(source: str | None, prefix: str = "") -> list[str]:
    """Names in a collection that begin with `prefix`; [] if it does not answer.

    Args:
        source: As `--source` names it; None: as the environment says.
        prefix: What is typed already.
    """
    found: list[str] = []

    def look() -> None:
        from zoo.collection.opening import open_source

        # Whatever is wrong, the command itself will say it; here it would only
        # disturb what is being typed.
        with contextlib.suppress(Exception):
            found.extend(open_source(source).index.names())

    # A thread, since no other limit holds for a name that does not resolve as well as
    # for a server that trickles; it does not outlive the process.
    thread = Thread(target=look, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return [name for name in found if name.startswith(prefix)]
