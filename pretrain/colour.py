"""Colour jitter, grey and blur of whole batches, every image with draws of its own.

As torchvision's ColorJitter, RandomGrayscale and GaussianBlur do it image by image: the
four changes of the jitter come in an order drawn for each image, and each is clipped.
All but that of the hue are one product of 3 x 3 matrices with the colours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.randomness import ImageGenerator
from pretrain.recipe import AugmentSettings

GREY = (0.2989, 0.587, 0.114)
"""Of red, green and blue in the luma, as torchvision and Pillow have it."""
SIGMA = (0.1, 2.0)
"""Of the blur, in pixels (SimCLR, arXiv 2002.05709, appendix A)."""
BLURRED = 0.1
"""Width of its kernel as a share of the image's side; the same source."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def recolour(x: Tensor, settings: AugmentSettings, draws: ImageGenerator) -> Tensor:
    """Jitter, grey and blur, each with its probability; 12 draws an image.

    Args:
        x: Images (N, C, H, W) in [0, 1]. Only those of three channels have colours.
        settings: How strong.
        draws: Of these images.
    """
    u = draws.uniform(len(x), 12).to(x.device)
    if any(settings.jitter):
        strengths = torch.tensor(settings.jitter, device=x.device)
        if x.shape[1] != 3:
            strengths[SATURATION:] = 0
        strengths = strengths * (u[:, :1] < settings.jitter_p)  # (N, 4)
        changes = (2 * u[:, 4:8] - 1) * strengths
        x = jitter(x, changes, order=u[:, 8:].argsort(dim=1))
    if settings.gray and x.shape[1] == 3:
        rows = (u[:, 1] < settings.gray).nonzero().flatten()
        x = x.index_copy(0, rows, luma(x[rows]).expand(-1, 3, -1, -1))
    if settings.blur:
        rows = (u[:, 2] < settings.blur).nonzero().flatten()
        low, high = SIGMA
        blurred = blur(x[rows], low + (high - low) * u[rows, 3])
        x = x.index_copy(0, rows, blurred)
    return x


def luma(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, 1, H, W); without colours, the mean of the channels."""
    return (x * _weights(x).view(-1, 1, 1)).sum(dim=1, keepdim=True)


def jitter(x: Tensor, changes: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast and saturation times 1 + change, hue plus change turns.

    Args:
        x: Images (N, C, H, W) in [0, 1].
        changes: (N, 4), in the order of the names above, >= -1; 0 changes nothing.
        order: (N, 4), int64: which of them comes first, second, ...
    """
    x = x.contiguous()
    factors = 1 + changes
    factors[:, HUE] = 1
    turned = changes[:, HUE] != 0
    for kind in order.unbind(dim=1):
        x = _mixed(x, kind, factors.gather(1, kind.unsqueeze(1)))
        rows = (turned & (kind == HUE)).nonzero().flatten()
        if len(rows):
            x.index_copy_(0, rows, turn(x[rows], changes[rows, HUE]))
    return x


def _mixed(x: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """factor * x + (1 - factor) * black, mean luma or luma, clipped.

    `kind` (N,) says which; `factor` is (N, 1).
    """
    n, channels = x.shape[:2]
    weights, rest = _weights(x), (1 - factor).unsqueeze(2)
    one = torch.eye(channels, device=x.device)
    saturates = (kind == SATURATION).view(n, 1, 1)
    matrix = factor.unsqueeze(2) * one + (rest * saturates) * weights
    mean = (x.mean(dim=(2, 3)) @ weights).view(n, 1, 1)
    shift = rest * (kind == CONTRAST).view(n, 1, 1) * mean
    mixed = torch.baddbmm(shift.expand(n, channels, 1), matrix, x.flatten(2))
    return mixed.clamp_(0, 1).view_as(x)


def turn(x: Tensor, change: Tensor) -> Tensor:
    """Colours (N, 3, H, W) with another hue, by so many turns (N,) of the HSV hexagon.

    Source: Smith 1978, "Color gamut transform pairs"; back from HSV in one formula for
    all channels, V - V S max(0, min(k, 4 - k, 1)), k = (n + H / 60) mod 6, n = 5, 3, 1.
    """
    red, green, blue = x.unbind(dim=1)
    top = x.amax(dim=1)
    chroma = top - x.amin(dim=1)
    scale = chroma.clamp(min=1e-12).reciprocal()
    hue = torch.where(
        top == red,
        (green - blue) * scale,
        torch.where(top == green, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    hue += 6 * change.view(-1, 1, 1)
    sides = torch.tensor([5.0, 3.0, 1.0], device=x.device).view(3, 1, 1)
    k = hue.unsqueeze(1) + sides
    k -= (k / 6).floor_().mul_(6)
    k = torch.minimum(k, 4 - k).clamp_(0, 1)
    return torch.addcmul(top.unsqueeze(1), k, chroma.unsqueeze(1), value=-1)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Images (N, C, H, W) under Gaussians of widths sigma (N,), mirrored at the border.

    Each image's kernel is a band matrix, one for its rows and one for its columns: two
    products of matrices.
    """
    down, across = (_band(sigma, side) for side in x.shape[2:])
    return down.unsqueeze(1) @ x @ across.unsqueeze(1).mT


def _band(sigma: Tensor, side: int) -> Tensor:
    """(N, side, side): row i has the weights of what pixel i becomes."""
    reach = min(max(1, int(BLURRED * side) // 2), side - 1)
    offsets = torch.arange(-reach, reach + 1, device=sigma.device)
    weights = (-0.5 * (offsets / sigma.unsqueeze(1)).square()).softmax(dim=1)
    seen = (torch.arange(side, device=sigma.device).unsqueeze(1) + offsets).abs()
    seen = (side - 1) - ((side - 1) - seen).abs()  # mirrored at both ends
    n, width = weights.shape
    band = sigma.new_zeros(n, side, side)
    return band.scatter_add_(
        2, seen.expand(n, side, width), weights.unsqueeze(1).expand(n, side, width)
    )


def _weights(x: Tensor) -> Tensor:
    channels = x.shape[1]
    if channels == 3:
        return torch.tensor(GREY, device=x.device)
    return torch.full((channels,), 1 / channels, device=x.device)
