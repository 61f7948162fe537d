"""One pool of threads at a time, no larger than the work.

torch computes on a pool of OpenMP threads. The BLAS of numpy and scipy brings a pool
of its own; called between torch's operations, each pool waits, spinning, on cores that
the other one needs, and a fit of a second takes a minute. And threads that meet after
every tenth of a millisecond wait for each other longer than they compute, above all
where other processes keep the cores busy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from math import inf, prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController
    from torch import nn

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Where users say how OpenMP's threads wait for each other."""
GRAIN = 1e8
"""Multiply-adds between two meetings of the threads that are worth one thread more:
about 10 ms."""
TORCH = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Where users say how many threads torch is to have."""
BLAS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "BLIS_NUM_THREADS")
"""Where users say how many threads the BLAS of numpy and scipy is to have."""


@contextmanager
def fitting_threads(work: float = inf) -> Iterator[None]:
    """Inside, BLAS has one thread, and torch no more than the work is worth.

    What the user set is kept: torch never has more threads than before, and as many if
    an environment variable says how many; likewise BLAS. All is restored after.

    Args:
        work: Multiply-adds of one operation; by default torch keeps its threads.
    """
    import torch

    before = torch.get_num_threads()
    most = before if _set(TORCH) else max(1, int(min(before, work / GRAIN)))
    with ExitStack() as stack:
        if not _set(BLAS):
            stack.enter_context(_blas().limit(limits=1))
        if most != before:
            torch.set_num_threads(most)
            stack.callback(torch.set_num_threads, before)
        yield


def wait_asleep() -> None:
    """OpenMP's threads are to sleep while they wait, unless the user said how to wait.

    Spinning, two threads of torch took four times as long as one on busy cores. For
    the commands alone, and before torch is imported: it holds for the whole process.
    """
    if "torch" not in sys.modules and not _set(WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def network_work(network: nn.Module, shape: tuple[int, ...]) -> float:
    """About the multiply-adds of one layer on a batch of images of `shape` (C, H, W).

    Every weight times every pixel: as many as one image would need if no layer made it
    smaller, and a few hundred images need in each of a dozen layers that do.
    """
    return float(sum(p.numel() for p in network.parameters()) * prod(shape[1:]))


def _set(names: tuple[str, ...]) -> bool:
    return any(os.environ.get(name) for name in names)


@cache
def _blas() -> ThreadpoolController:
    """The BLAS libraries here with threads of their own, not OpenMP's.

    A library over OpenMP (MKL) may be torch's own, and does not spin against it.
    """
    import numpy  # noqa: F401 - so that its BLAS is there to be limited
    import scipy.linalg  # noqa: F401 - brings another
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(threading_layer="pthreads")
