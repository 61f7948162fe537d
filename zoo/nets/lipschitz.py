"""An encoder whose Lipschitz constant can be read off its weights."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


class MaxMin(nn.Module):
    """Sorts neighbouring pairs of features: (N, 2k) to (N, 2k).

    It only permutes, so it is 1-Lipschitz and keeps the gradient's norm, where ReLU
    loses it (Anil, Lucas & Grosse 2019, arXiv 1811.05381).
    """

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.view(len(x), -1, 2)
        return pairs.sort(dim=2).values.view_as(x)


class LipschitzNet(nn.Module):
    """Dense layers with MaxMin in between; plain weights, nothing is normalised here.

    Training keeps the weights orthogonal (`pretrain.methods.lipschitz`); what they came
    to is computed from them whenever a certificate is given.

    Args:
        pixels: C * H * W.
        widths: Even widths of the layers; the last is the number of features.
    """

    def __init__(self, pixels: int, widths: list[int]) -> None:
        super().__init__()
        self.dim = widths[-1]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in zip([pixels, *widths[:-1]], widths, strict=True):
            layers += [nn.Linear(inputs, outputs), MaxMin()]
        self.layers = nn.Sequential(*layers[:-1])

    def linears(self) -> Iterator[nn.Linear]:
        """The layers that carry weights, in order."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                yield layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def lipschitz_dense(*, in_channels: int, size: int, widths: list[int]) -> nn.Module:
    """A `LipschitzNet` for square images of `size` pixels a side."""
    return LipschitzNet(in_channels * size * size, widths)
