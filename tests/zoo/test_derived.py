"""Tasks made of a dataset: labels, pixels, names, and the order of sorted folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from zoo import datasets
from zoo.datasets.derived import _blur, _bytes, _noise
from zoo.datasets.derived_names import GROUPINGS, SAME_LABELS
from zoo.datasets.loading import load_recorded
from zoo.errors import UserError

PHOTOS = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that lies as CIFAR-10 (JPEG) does, of eight images a class."""
    root = tmp_path_factory.mktemp("photographs")
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in PHOTOS:
            folder = root / "cifar10-jpeg" / split / name
            folder.mkdir(parents=True)
            for at in range(8):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{at}.jpg")
    return root


def test_a_grouping_is_what_its_name_says() -> None:
    target = load_digits().target[::5]
    parity = datasets.load("digits+parity", "test")
    assert parity.classes == ("even", "odd")
    assert parity.labels.tolist() == (target % 2).tolist()
    assert torch.equal(parity.labels, datasets.load("digits-parity", "test").labels)
    half = datasets.load("digits+half", "test").labels
    assert half.tolist() == (target >= 5).astype(int).tolist()
    plain = datasets.load("digits", "test")
    assert torch.allclose(parity.images(slice(9)), plain.images(slice(9)), atol=1 / 510)


@pytest.mark.parametrize("base", sorted(GROUPINGS))
def test_every_class_is_in_one_group(base: str) -> None:
    row = datasets.get(base)
    for name, groups in GROUPINGS[base].items():
        members = [member for names in groups.values() for member in names]
        assert len(members) == len(set(members)) == row.classes
        assert datasets.get(f"{base}+{name}").classes == len(groups)


def test_groups_of_photographs_are_of_their_classes(photographs: Path) -> None:
    data = datasets.load("cifar10-jpeg", "test", data_dir=photographs)
    assert sorted(data.classes) == PHOTOS
    made = datasets.load("cifar10-jpeg+animals", "test", data_dir=photographs)
    assert Counter(made.labels.tolist()) == {0: 32, 1: 48}


def test_a_sorted_folder_is_mixed_and_its_images_keep_their_labels(
    photographs: Path,
) -> None:
    plain = datasets.load("cifar10-jpeg", "test", data_dir=photographs)
    made = datasets.load("cifar10-jpeg+kinds", "test", data_dir=photographs)
    assert len(set(made.take(20).labels.tolist())) > 2
    assert made.take(20).positions.tolist() == list(range(20))
    group = {
        plain.classes.index(name): at
        for at, names in enumerate(GROUPINGS["cifar10-jpeg"]["kinds"].values())
        for name in names
    }
    known = {
        image.numpy().tobytes(): group[label]
        for image, label in zip(
            plain.integers(slice(None)), plain.labels.tolist(), strict=True
        )
    }
    found = [known.pop(x.numpy().tobytes()) for x in made.integers(slice(None))]
    assert found == made.labels.tolist()
    assert not known


def test_rotation_turns_each_image_by_its_label() -> None:
    plain = datasets.load("digits", "test")
    made = datasets.load("digits+rotation", "test")
    assert made.classes == ("0", "90", "180", "270")
    assert min(Counter(made.labels.tolist()).values()) > 60
    for at in range(24):
        turned = torch.rot90(plain.images([at]), int(made.labels[at]), dims=(2, 3))
        assert torch.allclose(made.images([at]), turned, atol=1 / 510)


def test_grey_is_pillows_luma(photographs: Path) -> None:
    plain = datasets.load("cifar10-jpeg", "test", data_dir=photographs)
    made = datasets.load("cifar10-jpeg+grey", "test", data_dir=photographs)
    luma = {
        np.asarray(Image.fromarray(x.permute(1, 2, 0).numpy()).convert("L")).tobytes()
        for x in plain.integers(slice(None))
    }
    close = 0
    for x in made.integers(slice(None)).numpy():
        assert (x[0] == x[1]).all()
        assert (x[0] == x[2]).all()
        exact = [np.frombuffer(each, np.uint8).reshape(32, 32) for each in luma]
        close += any(abs(each.astype(int) - x[0]).max() <= 1 for each in exact)
    assert close == len(made)


def test_corruptions_are_what_they_are_called() -> None:
    flat = np.full((200, 1, 16, 16), 128, np.int32)
    noise = _noise(flat, np.arange(200)) - 128
    assert abs(noise.mean()) < 0.5
    assert 19 < noise.std() < 21
    assert not (noise[0] == noise[1]).all()
    assert (_blur(flat, np.arange(200)) == 128).all()
    dot = np.zeros((1, 1, 9, 9), np.int32)
    dot[0, 0, 4, 4] = 255
    row = np.array([1, 4, 6, 4, 1]) / 16
    want = 255 * np.outer(row, row)
    assert abs(_blur(dot, np.arange(1))[0, 0, 2:7, 2:7] - want).max() <= 1
    low = datasets.load("digits+contrast", "test").images(slice(None))
    assert 76 / 255 <= low.min() < low.max() <= 179 / 255


def test_pixels_become_bytes_to_the_nearest() -> None:
    for levels in (16, 255):
        x = np.arange(levels + 1, dtype=np.uint8)
        assert _bytes(x, levels).tolist() == [
            int(np.floor(255 * v / levels + 0.5)) for v in range(levels + 1)
        ]


@pytest.mark.parametrize("part", ["parity", "rotation", *SAME_LABELS])
def test_is_the_same_each_time_and_by_its_recorded_name(part: str) -> None:
    name = f"digits+{part}@1x16x16"
    data = datasets.load(name, "test")
    assert data.name == name
    assert data.shape == (1, 16, 16)
    assert load_recorded(name, "test", None).fingerprint() == data.fingerprint()
    row = datasets.find(name)
    assert row is not None
    assert row.classes == len(data.classes)
    assert row.eps == datasets.get("digits").eps


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits+parit", "no part 'parit'; did you mean 'parity'"),
        ("digits+animals", "no part 'animals'"),
        ("digts+parity", "unknown dataset 'digts"),
        ("digits+noise+noise", "a part twice"),
        ("digits+parity+rotation", "two kinds of labels"),
        ("digits+", "no part ''"),
    ],
)
def test_names_that_cannot_be(name: str, message: str) -> None:
    with pytest.raises(UserError, match="(?i)" + message.replace("+", r"\+")):
        datasets.load(name, "test")
    assert datasets.find(name) is None
