"""A process that hangs in the middle of a fit is named by the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("hanging_worker.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rank", [0, 1])
def test_the_process_that_hangs_is_named(rank: int) -> None:
    """The leading one as well, which the other waits for to be told to go on."""
    done = subprocess.run(
        [sys.executable, *TORCHRUN, str(WORKER), str(rank)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("said: ")]
    assert len(said) == 1, done.stderr[-2000:]
    assert f"process {rank} of this evaluation ended or hung" in said[0]
