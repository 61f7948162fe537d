"""Which devices a command may name."""

from __future__ import annotations

from zoo.budgets import plain_reason
from zoo.errors import UserError


def check_device(device: str) -> None:
    """Raises `UserError` for a device that does not compute on this machine."""
    import torch

    try:
        torch.zeros(1, device=device).item()  # "meta" has no numbers
    except Exception as error:  # each kind of device fails in its own way
        raise UserError(
            f"device '{device}' cannot be used: {plain_reason(error)}; use cpu or cuda"
        ) from None
