"""How long README's first command takes, alone and beside busy processes.

    python -m benchmarks.first_command

Default threads against one thread (OMP_NUM_THREADS=1), each alone and beside one and
two processes that never rest; the probe is also timed apart. Seconds are medians, from
the start of the command to its end. The load of the machine before each round is
printed, since whatever else runs there counts as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zoo.threads import BLAS, TORCH, WAITING

COMMAND = ("-m", "robrep_eval", "--model", "zoo:tarrl-digits", "-q")
THREADS = {"default threads": {}, "one thread": {"OMP_NUM_THREADS": "1"}}


@dataclass(frozen=True)
class Times:
    """Of one run, or medians of several; seconds."""

    whole: float
    probe: float


def main() -> None:
    """Prints a line for each number of busy processes and each setting of threads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--busy", nargs="*", type=int, default=(0, 1, 2))
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, median of {given.repeat}")
    alone: dict[str, Times] = {}
    for busy in given.busy:
        load = os.getloadavg()[0]
        with _beside(busy):
            found = _medians(given.repeat)
        for name, times in found.items():
            ratios = [f"{times.whole / found['one thread'].whole:.2f} of one thread"]
            if name in alone:
                ratios.append(f"{times.whole / alone[name].whole:.2f} of alone")
            print(
                f"beside {busy} busy (load before {load:.1f}), {name}: "
                f"{times.whole:.1f} s, probe {times.probe:.1f} s; {', '.join(ratios)}",
                flush=True,
            )
        if busy == 0:
            alone = found


def _medians(repeat: int) -> dict[str, Times]:
    """Both settings in turn, so that a change of load meets both."""
    runs: dict[str, list[Times]] = {name: [] for name in THREADS}
    for _ in range(repeat):
        for name, variables in THREADS.items():
            runs[name].append(_once(variables))
    return {
        name: Times(
            statistics.median(t.whole for t in times),
            statistics.median(t.probe for t in times),
        )
        for name, times in runs.items()
    }


def _once(variables: dict[str, str]) -> Times:
    ours = {*TORCH, *BLAS, *WAITING}
    env = {name: value for name, value in os.environ.items() if name not in ours}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *COMMAND, "--output", str(output)],
            env=env | variables,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds = time.perf_counter() - began
        record = json.loads((output / "result.json").read_text())
    return Times(seconds, record["seconds"]["probe"])


@contextmanager
def _beside(count: int) -> Iterator[None]:
    """Processes that keep a core busy each, as far as there are cores."""
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
