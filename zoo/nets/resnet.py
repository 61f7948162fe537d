"""Residual networks for 32x32 images: ResNet-18, its pre-activation form, WideResNet.

Parameter names follow the public CIFAR code that most checkpoints of the field were
trained with (conv1, layer1.0.conv1, shortcut.0, ...), so those load as they are.

Sources: He et al. 2016, arXiv 1512.03385 and 1603.05027; Zagoruyko & Komodakis 2016,
arXiv 1605.07146.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UserError


def conv(c_in: int, c_out: int, *, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the map size at stride 1."""
    return nn.Conv2d(
        c_in, c_out, size, stride=stride, padding=(size - 1) // 2, bias=False
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(c_in, c_out, stride=stride)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = conv(c_out, c_out)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                conv(c_in, c_out, size=1, stride=stride), nn.BatchNorm2d(c_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class PreActBlock(nn.Module):
    """The pre-activation form: batch norm and ReLU before each convolution."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = conv(c_in, c_out, stride=stride)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = conv(c_out, c_out)
        self.shortcut: nn.Module | None = None
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(conv(c_in, c_out, size=1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(activated)
        out = self.conv1(activated)
        residual: Tensor = self.conv2(F.relu(self.bn2(out)))
        return residual + skip


def stage(
    block: type[nn.Module], c_in: int, c_out: int, blocks: int, stride: int
) -> nn.Sequential:
    """`blocks` blocks, the first of which changes width and map size."""
    strides = [stride] + [1] * (blocks - 1)
    inputs = [c_in] + [c_out] * (blocks - 1)
    return nn.Sequential(
        *(block(c, c_out, s) for c, s in zip(inputs, strides, strict=True))
    )


def pool(x: Tensor) -> Tensor:
    """Global average pooling, (N, d, H, W) -> (N, d), in float32 at least.

    Under autocast the maps are bf16; features rounded to 8 bits would hide what moves
    them.
    """
    return x.mean(dim=(2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


class ResNet(nn.Module):
    """Four stages of basic blocks behind a CIFAR or an ImageNet stem.

    Args:
        in_channels: Channels of the images.
        stem: "cifar" (3x3, stride 1) or "imagenet" (7x7, stride 2, max-pool), the
            latter as the field uses it for 96x96 STL-10.
        stem_padding: Padding of the 3x3 stem. 1 almost everywhere; solo-learn and
            DeACL train with 2, whose weights have the same shapes and load silently
            into the wrong network, hence recorded with every checkpoint.
    """

    dim = 512

    def __init__(
        self, in_channels: int, stem: Literal["cifar", "imagenet"], stem_padding: int
    ) -> None:
        super().__init__()
        if stem not in ("cifar", "imagenet"):
            raise UserError(f"stem must be 'cifar' or 'imagenet', not '{stem}'")
        self.max_pool = stem == "imagenet"
        self.conv1 = (
            nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            if self.max_pool
            else nn.Conv2d(in_channels, 64, 3, padding=stem_padding, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(BasicBlock, 64, 64, 2, 1)
        self.layer2 = stage(BasicBlock, 64, 128, 2, 2)
        self.layer3 = stage(BasicBlock, 128, 256, 2, 2)
        self.layer4 = stage(BasicBlock, 256, 512, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if self.max_pool:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        return pool(self.layer4(self.layer3(self.layer2(self.layer1(x)))))


class PreActResNet(nn.Module):
    """Pre-activation network with a 3x3 stem: PreActResNet-18 or a WideResNet.

    Args:
        in_channels: Channels of the images.
        widths: Width of the stem, then of each stage.
        blocks: Blocks per stage; the first stage keeps the map size.
    """

    def __init__(self, in_channels: int, widths: list[int], blocks: int) -> None:
        super().__init__()
        self.dim = widths[-1]
        self.conv1 = conv(in_channels, widths[0])
        pairs = pairwise(widths)
        self.layers = nn.Sequential(
            *(
                stage(PreActBlock, c_in, c_out, blocks, 1 if i == 0 else 2)
                for i, (c_in, c_out) in enumerate(pairs)
            )
        )
        self.bn = nn.BatchNorm2d(self.dim)

    def forward(self, x: Tensor) -> Tensor:
        return pool(F.relu(self.bn(self.layers(self.conv1(x)))))


def resnet18(
    *, in_channels: int, stem: Literal["cifar", "imagenet"], stem_padding: int
) -> nn.Module:
    """ResNet-18; see `ResNet` for the options."""
    return ResNet(in_channels, stem, stem_padding)


def preact_resnet18(*, in_channels: int) -> nn.Module:
    """Pre-activation ResNet-18."""
    return PreActResNet(in_channels, [64, 64, 128, 256, 512], blocks=2)


def wide_resnet(*, in_channels: int, depth: int, widen: int) -> nn.Module:
    """WideResNet-`depth`-`widen`; depth must be 6 n + 4."""
    if (depth - 4) % 6:
        raise UserError(f"depth of a WideResNet must be 6 n + 4, not {depth}")
    widths = [16, 16 * widen, 32 * widen, 64 * widen]
    return PreActResNet(in_channels, widths, blocks=(depth - 4) // 6)
