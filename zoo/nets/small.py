"""Small residual networks that train on two CPU cores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.nets.resnet import BasicBlock, pool, stage


class SmallResNet(nn.Module):
    """A 3x3 stem and a few stages of basic blocks; each stage after the first halves.

    Args:
        in_channels: Channels of the images.
        widths: Channels of each stage; the last is the number of features.
        blocks: Blocks of each stage.
        stem_stride: 2 halves large images at once, which quarters the cost.
    """

    def __init__(
        self, in_channels: int, widths: list[int], blocks: list[int], stem_stride: int
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or not widths:
            raise UserError(
                f"widths {widths} and blocks {blocks} must have one number per stage"
            )
        self.dim = widths[-1]
        self.conv1 = nn.Conv2d(
            in_channels, widths[0], 3, stride=stem_stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = [widths[0], *widths[:-1]]
        self.layers = nn.Sequential(
            *(
                stage(BasicBlock, c_in, c_out, n, 1 if i == 0 else 2)
                for i, (c_in, c_out, n) in enumerate(
                    zip(inputs, widths, blocks, strict=True)
                )
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return pool(self.layers(F.relu(self.bn1(self.conv1(x)))))


def small_resnet(
    *, in_channels: int, widths: list[int], blocks: list[int], stem_stride: int
) -> nn.Module:
    """A `SmallResNet`; see there for the options."""
    return SmallResNet(in_channels, widths, blocks, stem_stride)
