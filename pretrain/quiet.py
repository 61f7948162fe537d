"""Imports of libraries that warn about parts of torch they have yet to leave."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_import() -> Iterator[None]:
    """Hides FutureWarnings that are not about our code (torch.jit in kornia, timm)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
