"""Which memory format the convolutions of a network are computed in."""

from __future__ import annotations

import torch
from torch import nn


def memory_format(network: nn.Module) -> torch.memory_format:
    """channels_last, on CPUs worth a factor of 1.3 to 3, wherever it is safe.

    torch's CPU kernels (seen with 2.14) write beyond their memory in the backward pass
    of channels_last convolutions with 4 output channels; such networks keep the
    default format.
    """
    narrow = any(
        module.out_channels < 8
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    )
    return torch.contiguous_format if narrow else torch.channels_last
