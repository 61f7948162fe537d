"""What a part of the benchmark took: seconds, seconds of cores, and memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path


class Usage:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), core_seconds()
        self.memory = _status("RssAnon")

    def seconds(self) -> float:
        """Of the clock."""
        return time.perf_counter() - self.wall

    def cores(self) -> float:
        """Seconds of cores, of this process and of those that it started and ended."""
        return core_seconds() - self.cpu

    def mebibytes(self) -> float:
        """The most memory that no file backs, above that at the start.

        Of this process alone. What files back is what they back now, so this is an
        upper bound where fewer of their pages were in memory at the peak.
        """
        peak = _status("VmHWM") - _status("RssFile") - _status("RssShmem")
        return (peak - self.memory) / 2**20


def core_seconds() -> float:
    """Seconds of cores, of this process and of those that it started and ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(each.ru_utime + each.ru_stime for each in used)


def rate(work: Callable[[], int]) -> tuple[float, float]:
    """Pieces of work a second, and a second of a core."""
    usage = Usage()
    count = work()
    return count / usage.seconds(), count / usage.cores()


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"this system does not tell {key}; Linux does")
