"""Networks that exist during pretraining only."""

from __future__ import annotations

from torch import nn

from pretrain.recipe import ProjectorSettings


def projector(dim: int, settings: ProjectorSettings) -> nn.Sequential:
    """h: linear layers with batch norm after each and ReLU between (as ACL's).

    Args:
        dim: Number of features.
        settings: Width of the hidden and of the last layer, number of layers.
    """
    widths = [dim] + [settings.hidden] * (settings.layers - 1) + [settings.out]
    layers: list[nn.Module] = []
    for i in range(settings.layers):
        layers += [
            nn.Linear(widths[i], widths[i + 1], bias=False),
            nn.BatchNorm1d(widths[i + 1]),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers[:-1])
