"""Views: every image its own, in range, reproducible, and what the settings say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pretrain.augment import PHOTOS, PRESETS, augment, preset, weak, weakened
from pretrain.recipe import AugmentSettings


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(n: int, c: int = 1, side: int = 8) -> Tensor:
    return torch.rand(n, c, side, side, generator=_generator(9))


@pytest.mark.parametrize("name", [*sorted(PRESETS), "cifar10"])
def test_views_are_in_range_reproducible_and_differ_between_images(name: str) -> None:
    channels = 3 if name in ("svhn", "stl10", "cifar10") else 1
    settings = preset(name, channels)
    x = _images(1, channels, 16).expand(32, -1, -1, -1)
    views = augment(x, settings, _generator())
    assert float(views.min()) >= 0
    assert float(views.max()) <= 1
    assert torch.equal(views, augment(x, settings, _generator()))
    assert len(views.flatten(1).unique(dim=0)) > 28  # one image, 32 different views


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    augment(_images(4, 3), PHOTOS, _generator())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["digits", "stl10"])
def test_autocast_does_not_reach_the_views(name: str) -> None:
    # affine_grid multiplies matrices: in bf16 pixels would land elsewhere.
    channels = 3 if name == "stl10" else 1
    settings, x = preset(name, channels), _images(8, channels, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = augment(x, settings, _generator())
    assert torch.equal(found, augment(x, settings, _generator()))


def test_nothing_on_changes_nothing() -> None:
    x = _images(4)
    assert torch.equal(augment(x, AugmentSettings(), _generator()), x)


def test_flip_is_a_mirror_image() -> None:
    x = _images(4)
    flipped = augment(x, AugmentSettings(flip=1), _generator())
    torch.testing.assert_close(flipped, x.flip(3), atol=1e-5, rtol=0)


def test_half_the_images_are_mirrored_at_a_half() -> None:
    x = _images(1).expand(2000, -1, -1, -1)
    views = augment(x, AugmentSettings(flip=0.5), _generator())
    mirrored = (views - x.flip(3)).abs().flatten(1).amax(dim=1) < 1e-4
    assert 900 < int(mirrored.sum()) < 1100  # 4.5 standard deviations


def test_shift_moves_at_most_so_far_and_fills_with_black() -> None:
    x = torch.zeros(500, 1, 16, 16)
    x[:, :, 8, 8] = 1
    views = augment(x, AugmentSettings(shift=0.25), _generator())  # 4 of 16 pixels
    mass = views / views.sum(dim=(2, 3), keepdim=True)
    grid = torch.arange(16.0)
    row = (mass.sum(dim=3) * grid).sum(dim=(1, 2)) - 8
    column = (mass.sum(dim=2) * grid).sum(dim=(1, 2)) - 8
    for offset in (row, column):
        assert float(offset.abs().max()) <= 4 + 1e-3
        assert float(offset.max()) > 3.5
        assert float(offset.min()) < -3.5
    gone = augment(torch.ones(50, 1, 16, 16), AugmentSettings(shift=0.25), _generator())
    assert float(gone.min()) == 0


def test_a_crop_magnifies_and_stays_inside() -> None:
    # A ramp: a crop of a share of the side shows that share of its range.
    ramp = torch.linspace(0, 1, 32).expand(300, 1, 32, 32)
    views = augment(ramp, AugmentSettings(crop=0.25), _generator())
    span = views[:, 0, 16].amax(dim=1) - views[:, 0, 16].amin(dim=1)
    smallest = (0.25 * 3 / 4) ** 0.5  # of the width, at the most extreme ratio
    assert float(span.min()) > 0.95 * smallest
    assert float(span.min()) < 1.4 * smallest
    assert float(span.max()) > 0.95
    ones = augment(torch.ones(300, 1, 32, 32), AugmentSettings(crop=0.25), _generator())
    torch.testing.assert_close(ones[:, :, 1:-1, 1:-1], torch.ones(300, 1, 30, 30))


def test_rotation_keeps_the_centre_and_turns_the_rest() -> None:
    x = torch.zeros(200, 1, 33, 33)
    x[:, :, 16, 16:] = 1  # a ray from the centre to the right
    views = augment(x, AugmentSettings(rotate=30), _generator())
    assert float(views[:, 0, 16, 16].min()) > 0.4
    column = views[:, 0, :, 28]  # 12 pixels from the centre
    rows = torch.arange(33.0)
    height = (column * rows).sum(dim=1) / column.sum(dim=1) - 16
    assert float(height.abs().max()) == pytest.approx(
        12 * torch.tan(torch.tensor(0.5236)).item(), abs=0.6
    )


def test_grey_images_are_grey() -> None:
    views = augment(_images(8, 3), AugmentSettings(gray=1), _generator())
    torch.testing.assert_close(views[:, :1].expand_as(views), views)


def test_fading() -> None:
    half = weakened(PHOTOS, 0.5)
    assert half.crop == pytest.approx(0.55)  # DynACL: (1 - 0.9 s, 1)
    assert half.jitter == pytest.approx((0.2, 0.2, 0.2, 0.05))
    assert half.jitter_p == pytest.approx(0.4)
    assert half.flip == PHOTOS.flip
    assert weakened(PHOTOS, 1.0) == PHOTOS
    assert weak(PHOTOS) == AugmentSettings(shift=0.125, flip=0.5)
