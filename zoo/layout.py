"""How work is laid out: where it runs, and how much of it at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Of passes through a network; it changes no figure by more than rounding."""

    device: str = "cpu"
    """Where the network lives: "cpu", "cuda", "cuda:1"."""
    batch_size: int = 256
    """Images per forward pass."""


ON_CPU = Layout()
