"""Two processes fit a probe, one of which stops in the middle.

torchrun hanging_worker.py RANK: that one reads no further after ten walks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import torch
from torch import Tensor

from robrep_eval.probes.logistic import Logistic
from robrep_eval.probes.rows import Rows
from robrep_eval.run.shards import Shards
from zoo.errors import RobrepError

WAIT = timedelta(seconds=10)
"""For the other one."""
SLEEP = 120


class Stuck(Rows):
    """Rows that one process does not come back from."""

    walks = 0

    def groups(self, width: int) -> int:
        """One for each process."""
        return 2

    def blocks(
        self, width: int, group: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As they are, until they are not."""
        self.walks += 1
        if self.walks > 10 and os.environ["RANK"] == sys.argv[1]:
            time.sleep(SLEEP)
            os._exit(1)
        yield from super().blocks(width, group)


def main() -> None:
    """Prints what the other process says."""
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(200, 6, generator=draws)
    y = (z[:, 0] + torch.randn(200, generator=draws) > 0).long()
    from robrep_eval.probes import logistic

    logistic.CACHED_BYTES = 0  # or a small set is read once
    with Shards.from_environment().team("the fit", WAIT) as team:
        try:
            Logistic(Stuck([z], y), 2, team).solve(1e-3, 1e-12, 5000)
        except RobrepError as error:
            print(f"said: {error}", flush=True)
            os._exit(0)  # without waiting for the other


if __name__ == "__main__":
    main()
