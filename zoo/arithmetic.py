"""Arithmetic that a second machine can repeat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """float32 with all of its 24 bits inside, on GPUs too; restored after.

    There torch computes convolutions with 11 bits (TF32) unless told otherwise. An
    adversarial found so may be none on another device, and a figure would depend on
    the device by more than rounding.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before
