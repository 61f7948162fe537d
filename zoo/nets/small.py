"""Small residual networks that train on two CPU cores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UserError
from zoo.nets.resnet import BasicBlock, pool, stage


class SmallResNet(nn.Module):
    """A 3x3 stem and a few stages of basic blocks; each stage after the first halves.

    Args:
        in_channels: Channels of the images.
        widths: Channels of each stage; the last, times `grid` squared, is the number
            of features.
        blocks: Blocks of each stage.
        stem_stride: 2 halves large images at once, which quarters the cost.
        grid: Cells per side that the last maps are averaged in; 1 is global pooling.
    """

    def __init__(
        self,
        in_channels: int,
        widths: list[int],
        blocks: list[int],
        stem_stride: int,
        grid: int = 1,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks) or not widths:
            raise UserError(
                f"widths {widths} and blocks {blocks} must have one number per stage"
            )
        if type(stem_stride) is not int or not 1 <= stem_stride <= 8:
            raise UserError(f"stem_stride must be 1 to 8, not {stem_stride}")
        if grid < 1:
            raise UserError(f"grid must be 1 or more cells per side, not {grid}")
        self.grid = grid
        self.dim = widths[-1] * grid**2
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
        maps = self.layers(F.relu(self.bn1(self.conv1(x))))
        return pool(maps) if self.grid == 1 else _pool_cells(maps, self.grid)


def _pool_cells(x: Tensor, grid: int) -> Tensor:
    """(N, d, H, W) -> (N, d grid^2): means of cells, in float32 at least."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.adaptive_avg_pool2d(wide, grid).flatten(1)


def small_resnet(
    *,
    in_channels: int,
    widths: list[int],
    blocks: list[int],
    stem_stride: int,
    grid: int = 1,
) -> nn.Module:
    """A `SmallResNet`; see there for the options."""
    return SmallResNet(in_channels, widths, blocks, stem_stride, grid)
