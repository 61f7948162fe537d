"""`robrep-pretrain` in one process of two, which stops reading after some batches.

torchrun hanging_training.py RANK WORDS
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from pretrain.cli import main
from pretrain.data import Batches, Rows

SLEEP = 120


def run(rank: str, words: list[str]) -> None:
    """As it is, until a disk does not answer in the second epoch."""
    epochs = Batches.epoch

    def stuck(self: Batches, number: int, first: int = 0) -> Iterator[Rows]:
        if number and os.environ["RANK"] == rank:
            time.sleep(SLEEP)
        yield from epochs(self, number, first)

    Batches.epoch = stuck  # type: ignore[method-assign]
    sys.argv = ["robrep-pretrain", *words]
    main()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
