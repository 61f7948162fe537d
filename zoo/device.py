"""Which devices a command may name."""

from __future__ import annotations

import os

from zoo.budgets import plain_reason
from zoo.errors import UserError


def check_device(device: str) -> None:
    """Raises `UserError` for a device that does not compute on this machine.

    "cuda" is, from here on, the GPU of this process: torchrun numbers those of a host.
    """
    import torch

    own = os.environ.get("LOCAL_RANK", "")
    if device == "cuda" and own.isdigit() and torch.cuda.device_count():
        torch.cuda.set_device(int(own) % torch.cuda.device_count())
    try:
        torch.zeros(1, device=device).item()  # "meta" has no numbers
    except Exception as error:  # each kind of device fails in its own way
        raise UserError(
            f"device '{device}' cannot be used: {plain_reason(error)}; use cpu or cuda"
        ) from None
