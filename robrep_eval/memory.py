"""How the C library treats freed memory."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h
LARGEST = 32 * 2**20
"""Bytes of the largest block taken from the heap; glibc allows no more."""
KEPT = 256 * 2**20
"""Bytes of free memory at the end of the heap that are kept for the next pass."""


@cache
def keep_freed_memory() -> None:
    """Has the process keep some freed memory instead of handing it back.

    By default glibc returns the activations of every pass to the system and gets them
    again page by page, zeroed: a tenth of a small network's pass. Elsewhere than with
    glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_THRESHOLD, LARGEST)
    library.mallopt(_TRIM_THRESHOLD, KEPT)
