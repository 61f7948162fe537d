"""Colour jitter, grey and blur: what torchvision does image by image."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch import Tensor

from pretrain.augment import PHOTOS, augment
from pretrain.colour import CONTRAST, HUE, blur, jitter, luma, recolour
from pretrain.randomness import ImageGenerator
from pretrain.recipe import AugmentSettings


def _images(n: int, channels: int = 3, height: int = 9, width: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, channels, height, width, generator=generator)
    x[0] = 0.25  # grey: without a hue
    x[1, :, 0] = 0
    x[2, :, :, 0] = 1
    return x


def _draws(n: int, epoch: int = 0) -> ImageGenerator:
    return ImageGenerator(0, "step", epoch, torch.arange(n))


def _one_by_one(x: Tensor, changes: Tensor, order: Tensor) -> Tensor:
    steps = (
        lambda v, c: reference.adjust_brightness(v, 1 + c),
        lambda v, c: reference.adjust_contrast(v, 1 + c),
        lambda v, c: reference.adjust_saturation(v, 1 + c),
        reference.adjust_hue,
    )
    done = []
    for image, change, kinds in zip(x, changes, order, strict=True):
        for kind in kinds.tolist():
            image = steps[kind](image, float(change[kind]))
        done.append(image)
    return torch.stack(done)


def test_jitter_is_that_of_torchvision_in_each_order() -> None:
    n = 96
    u = _draws(n).uniform(n, 8)
    changes = (2 * u[:, :4] - 1) * torch.tensor([0.8, 0.8, 0.8, 0.5])
    changes[::7] = 0
    order = u[:, 4:].argsort(dim=1)
    assert len(order.unique(dim=0)) == 24  # all there are
    x = _images(n)
    found = jitter(x, changes, order)
    torch.testing.assert_close(found, _one_by_one(x, changes, order), atol=2e-5, rtol=0)
    assert torch.equal(found[::7], x[::7])


def test_grey_images_have_brightness_and_contrast() -> None:
    x, order = _images(8, channels=1), torch.arange(4).expand(8, 4)
    changes = torch.zeros(8, 4)
    changes[:, CONTRAST] = torch.linspace(-0.5, 0.5, 8)
    torch.testing.assert_close(
        jitter(x, changes, order), _one_by_one(x, changes, order)
    )
    settings = AugmentSettings(jitter=(0, 0, 0.5, 0.5), jitter_p=1, gray=1)
    assert torch.equal(recolour(x, settings, _draws(8)), x)


def test_grey_is_the_luma() -> None:
    x = _images(4)
    torch.testing.assert_close(luma(x), reference.rgb_to_grayscale(x))


@pytest.mark.parametrize("side", [8, 40])
def test_blur_is_that_of_torchvision(side: int) -> None:
    x, sigma = _images(5, height=side, width=side), torch.linspace(0.1, 2, 5)
    kernel = max(3, side // 10 // 2 * 2 + 1)
    expected = torch.stack(
        [
            reference.gaussian_blur(image, [kernel, kernel], [float(s), float(s)])
            for image, s in zip(x, sigma, strict=True)
        ]
    )
    torch.testing.assert_close(blur(x, sigma), expected, atol=1e-5, rtol=0)


def test_blur_of_a_single_pixel_changes_nothing() -> None:
    x = torch.rand(3, 1, 1, 1)
    torch.testing.assert_close(blur(x, torch.ones(3)), x)


def test_probabilities_and_ranges_are_kept() -> None:
    x = torch.tensor([0.6, 0.3, 0.2]).view(3, 1, 1).expand(3000, 3, 4, 4)
    settings = AugmentSettings(jitter=(0, 0, 0, 0.1), jitter_p=0.6, gray=0.3)
    views = recolour(x, settings, _draws(3000))
    changed = (views != x).flatten(1).any(dim=1)
    grey = (views[:, 0] == views[:, 1]).flatten(1).all(dim=1)
    assert float(grey.float().mean()) == pytest.approx(0.3, abs=0.04)
    assert float(changed.float().mean()) == pytest.approx(1 - 0.4 * 0.7, abs=0.04)
    ends = torch.tensor([[0.0, 0, 0, -0.1], [0, 0, 0, 0.1]])
    low, high = jitter(x[:2], ends, torch.full((2, 4), HUE))[:, :, 0, 0]
    turned = views[changed & ~grey][:, :, 0, 0]
    # Hues near red: between the two ends green and blue move one way each.
    assert float(turned[:, 1].max()) <= float(high[1]) + 1e-5
    assert float(turned[:, 2].max()) <= float(low[2]) + 1e-5


def test_the_views_of_an_image_do_not_depend_on_its_neighbours() -> None:
    settings = PHOTOS.model_copy(update={"blur": 0.5, "rotate": 10})
    x = _images(32, height=16, width=16)
    draws = _draws(32)
    whole = [augment(x, settings, draws) for _ in "ab"]
    rows = torch.tensor([29, 3, 17])
    apart = ImageGenerator(0, "step", 0, rows)
    for views in whole:
        few = augment(x[rows], settings, apart)
        torch.testing.assert_close(few, views[rows], atol=1e-6, rtol=0)
    assert not torch.allclose(whole[0], whole[1])
    other = augment(x, settings, _draws(32, epoch=1))
    assert bool(((other - whole[0]).flatten(1).abs().amax(dim=1) > 1e-3).all())
