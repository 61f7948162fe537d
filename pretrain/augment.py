"""Random views of whole batches, every image with draws of its own.

Crop, shift, rotation and mirror image are one affine warp: one resampling, and on
small grey images several times faster than a library's chain of them. Colour and
blur are `pretrain.colour`'s, or kornia's where draws are of the step as a whole.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.colour import recolour
from pretrain.precision import in_fp32
from pretrain.quiet import quiet_import
from pretrain.randomness import Generator, ImageGenerator
from pretrain.recipe import AugmentSettings

if TYPE_CHECKING:
    from kornia.augmentation import AugmentationSequential

DIGITS = AugmentSettings(crop=0.6, shift=0.125, rotate=10, jitter=(0.3, 0.3, 0, 0))
CLOTHES = AugmentSettings(crop=0.3, flip=0.5, jitter=(0.4, 0.4, 0, 0))
PHOTOS = AugmentSettings(crop=0.1, flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), gray=0.2)
PRESETS = {
    "digits": DIGITS,
    "mnist": DIGITS,
    "svhn": PHOTOS.model_copy(update={"flip": 0.0, "crop": 0.3}),
    "fashion-mnist": CLOTHES,
    "stl10": PHOTOS.model_copy(update={"blur": 0.5}),
}
WEAK_SHIFT = 0.125
"""4 of 32 pixels, the field's crop with padding; 1 of 8."""


def preset(data: str, channels: int) -> AugmentSettings:
    """The usual views for a dataset; strangers get those of grey or colour images."""
    return PRESETS.get(data, PHOTOS if channels == 3 else CLOTHES)


def weakened(settings: AugmentSettings, strength: float) -> AugmentSettings:
    """All of it scaled by `strength` in [0, 1], but for the mirror image.

    Source: DynACL (arXiv 2303.01289): crop area from 1 - (1 - crop) s, jitter and its
    probability times s.
    """
    b, c, s, h = (strength * v for v in settings.jitter)
    return AugmentSettings(
        crop=1 - strength + strength * settings.crop,
        shift=strength * settings.shift,
        rotate=strength * settings.rotate,
        flip=settings.flip,
        jitter=(b, c, s, h),
        jitter_p=strength * settings.jitter_p,
        gray=strength * settings.gray,
        blur=strength * settings.blur,
    )


def weak(settings: AugmentSettings) -> AugmentSettings:
    """Shift and mirror image only, as supervised training and DeACL use."""
    return AugmentSettings(shift=WEAK_SHIFT, flip=settings.flip)


@in_fp32
def augment(x: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    """One random view of each image.

    Args:
        x: Images (N, C, H, W) in [0, 1].
        settings: How strong.
        generator: Of the images, or a CPU generator; equal states give equal views.

    Returns:
        Views like `x`, in [0, 1].
    """
    view = x
    if settings.crop < 1 or settings.shift or settings.rotate or settings.flip:
        view = _warp(view, settings, generator)
    if any(settings.jitter) or settings.gray or settings.blur:
        if isinstance(generator, ImageGenerator):
            view = recolour(view.clamp(0, 1), settings, generator)
        else:
            view = _recolour(view, settings, generator)
    return view.clamp(0, 1)


def _warp(x: Tensor, settings: AugmentSettings, generator: Generator) -> Tensor:
    """One bilinear resampling by a random affine map; black beyond the border."""
    n = len(x)
    draw = _uniform(generator, 7, n)
    area = 1 - (1 - settings.crop) * draw[0]
    # Aspect ratios from 3/4 to 4/3, log-uniform, as far as the crop stays inside.
    ratio = torch.exp((2 * draw[1] - 1) * math.log(4 / 3)) if settings.crop < 1 else 1
    width = (area * ratio).sqrt().clamp(max=1)
    height = (area / ratio).sqrt().clamp(max=1)
    # Coordinates run from -1 to 1, so a shift by a share s of the side is 2 s.
    reach = 2 * settings.shift
    center_x = (2 * draw[2] - 1) * (1 - width) + (2 * draw[3] - 1) * reach
    center_y = (2 * draw[4] - 1) * (1 - height) + (2 * draw[5] - 1) * reach
    mirror = torch.where(_uniform(generator, 1, n)[0] < settings.flip, -1.0, 1.0)
    angle = (2 * draw[6] - 1) * math.radians(settings.rotate)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([mirror * width * cos, -height * sin, center_x], dim=1),
            torch.stack([mirror * width * sin, height * cos, center_y], dim=1),
        ],
        dim=1,
    )  # (N, 2, 3)
    grid = F.affine_grid(theta.to(x), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, padding_mode="zeros")


def _uniform(generator: Generator, count: int, n: int) -> Tensor:
    """(count, n) in [0, 1): a column for each image."""
    if isinstance(generator, ImageGenerator):
        return generator.uniform(n, count).T
    return torch.rand((count, n), generator=generator)


def _recolour(
    x: Tensor, settings: AugmentSettings, generator: torch.Generator
) -> Tensor:
    """kornia's jitter, grey and blur; it draws from torch's global CPU generator."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also queue a seed, with its traceback, for every
        # kind of device that is never used: slow, and memory that grows for ever.
        torch.default_generator.manual_seed(seed)
        return _colours(settings, x.shape[1])(x.clamp(0, 1))  # type: ignore[no-any-return]


@lru_cache(maxsize=8)
def _colours(settings: AugmentSettings, channels: int) -> AugmentationSequential:
    with quiet_import():
        from kornia import augmentation as K

    brightness, contrast, saturation, hue = settings.jitter
    if channels != 3:
        saturation, hue = 0.0, 0.0
    steps: list[Any] = []
    if brightness or contrast or saturation or hue:
        kind = K.ColorJitter
        steps.append(kind(brightness, contrast, saturation, hue, p=settings.jitter_p))
    if settings.gray and channels == 3:
        steps.append(K.RandomGrayscale(p=settings.gray))
    if settings.blur:
        steps.append(K.RandomGaussianBlur((3, 3), (0.1, 2.0), p=settings.blur))
    return K.AugmentationSequential(*steps or [nn.Identity()], data_keys=["input"])
