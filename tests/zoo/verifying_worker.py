"""`robrep-zoo` in one process of several, with small blocks of images.

torchrun verifying_worker.py WHAT RANK FOLDER WORDS: that process stops ("hangs"), ends
("ends") or fails ("fails") at its first adversarials, or with what it took from the
queue; "goes on" if nobody does. Each leaves FOLDER/RANK with how many images it passed
through networks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import verification
from zoo.classifier import Classifier
from zoo.commands.cli import main
from zoo.processes import Company

BLOCK = 32
SLEEP = 120


def misbehave(what: str) -> None:
    """As a process does that is stopped, killed, or out of memory."""
    if what == "hangs":
        time.sleep(SLEEP)
    if what in ("hangs", "ends"):
        os._exit(0)
    if what == "fails":
        raise MemoryError("no memory left")


def spoil_queue(what: str, *, bad: bool) -> None:
    """One process takes the first item, and never tells what it came to."""
    queue = Company.queue

    def later(self: Company, count: int) -> Iterator[int]:
        while not self._has("taken/0"):
            time.sleep(0.01)
        return queue(self, count)

    if bad:
        Company.tell = lambda *_: misbehave(what)  # type: ignore[method-assign]
    else:
        Company.queue = later  # type: ignore[method-assign]


def run(what: str, rank: str, folder: Path, words: list[str]) -> None:
    """Counts, and has the process of that rank do what it is told."""
    torch.set_num_threads(1)
    verification.BLOCK = BLOCK
    passed, own = [0], os.environ.get("RANK", "0")
    forward, fault = Classifier.forward, verification._fault

    def counted(self: Classifier, x: Tensor) -> Tensor:
        passed[0] += len(x)
        (folder / own).write_text(str(passed[0]))
        return forward(self, x)

    def watched(*given: Any) -> str | None:
        if own == rank:
            misbehave(what)
        return fault(*given)

    Classifier.forward = counted  # type: ignore[method-assign]
    verification._fault = watched  # type: ignore[assignment]
    if what in ("hangs", "ends"):
        spoil_queue(what, bad=own == rank)
    sys.argv = ["robrep-zoo", *words]
    main()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
