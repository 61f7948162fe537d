"""Image folders as people have them: classes by name, splits, what does not count."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import datasets
from zoo.datasets.base import Dataset
from zoo.datasets.folder import files_below
from zoo.errors import UserError

LEVEL = {"cat": 40, "dog": 120, "emu": 220, "kitten": 60}
TWO = ("cat", "dog")


def _save(path: Path, level: int, *, side: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3), level, np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return _make(tmp_path / "own")


def _make(
    root: Path,
    train: Sequence[str] = TWO,
    test: Sequence[str] = TWO,
    split: str = "test",
) -> Path:
    for part, classes in (("train", train), (split, test)):
        for name in classes:
            for i in range(3):
                _save(root / part / name / f"{i}.png", LEVEL[name])
    return root


def _load(root: Path, split: str, shape: str = "") -> Dataset:
    return datasets.load(f"imagefolder:{root}{shape}", split)


def _check(data: Dataset, per_class: int = 3) -> None:
    """Every image has the level that its class was drawn with."""
    names = [data.classes[label] for label in data.labels.tolist()]
    levels = data.images(slice(None)).mean(dim=(1, 2, 3)) * 255
    want = torch.tensor([float(LEVEL[name]) for name in names])
    torch.testing.assert_close(levels, want, atol=0.5, rtol=0)
    assert {name: names.count(name) for name in names} == dict.fromkeys(
        names, per_class
    )


def test_a_class_missing_in_test_keeps_the_numbers_of_train(tmp_path: Path) -> None:
    root = _make(tmp_path, train=("cat", "dog", "emu"), test=("cat", "emu"))
    test = _load(root, "test")
    assert test.classes == _load(root, "train").classes == ("cat", "dog", "emu")
    assert test.labels.tolist() == [0, 0, 0, 2, 2, 2]
    _check(test)
    assert any("no images of class 'dog'" in note for note in test.notes)


def test_a_class_that_train_does_not_have_is_refused(tmp_path: Path) -> None:
    root = _make(tmp_path, ("cat", "dog", "kitten"), ("dog", "emu", "kitten"))
    with pytest.raises(UserError, match=r"test has images of class 'emu', of which"):
        _load(root, "test")
    (root / "test" / "emu").rename(root / "test" / "Kitten ")
    with pytest.raises(UserError, match=r"'Kitten ', .*did you mean 'kitten'\?"):
        _load(root, "test")
    shutil.rmtree(root / "test" / "Kitten ")
    (root / "test" / "fox").mkdir()
    _check(_load(root, "test"))
    for path in (root / "train" / "dog").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"'dog', of which .*train has none"):
        _load(root, "test")


def test_without_train_the_images_number_their_own_classes(root: Path) -> None:
    shutil.rmtree(root / "train")
    assert _load(root, "test").classes == TWO


def test_hidden_and_empty_files_and_folders_do_not_count(root: Path) -> None:
    before = _load(root, "train").fingerprint()
    for name in (".ipynb_checkpoints/0.png", "cat/.ipynb_checkpoints/0-copy.png"):
        _save(root / "train" / name, 0)
    (root / "train" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (root / "train" / "cat" / "._0.png").write_bytes(b"\0\5\26\7junk")
    plain = _load(root, "train")
    assert plain.classes == TWO
    assert (plain.fingerprint(), plain.notes) == (before, ())
    (root / "train" / "aaa").mkdir()
    (root / "train" / "bbb").mkdir()
    (root / "train" / "bbb" / "0.png").touch()
    (root / "train" / "dog" / "9.png").touch()
    (root / "train" / "cat" / "list.txt").write_text("0.png")
    (root / "train" / "loose.png").write_bytes(b"")
    said = _load(root, "train")
    assert (said.fingerprint(), said.classes) == (before, TWO)
    assert any("are no classes: aaa, bbb." in note for note in said.notes)
    assert any(
        all(name in note for name in ("9.png", "list.txt", "loose.png"))
        for note in said.notes
    )


def test_a_class_of_unknown_files_is_refused(root: Path) -> None:
    (root / "train" / "emu").mkdir()
    (root / "train" / "emu" / "0.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"emu holds no image .*0\.heic; save them as"):
        _load(root, "train")


def test_nested_images_count_and_links_in_a_circle_end(root: Path) -> None:
    _save(root / "train" / "cat" / "sub" / "deep" / "x.png", LEVEL["cat"])
    _save(root / "train" / "dog" / "sub" / "x.png", LEVEL["dog"])
    (root / "train" / "cat" / "sub" / "back").symlink_to(root / "train" / "cat")
    (root / "elsewhere").mkdir()
    (root / "train" / "cat").rename(root / "elsewhere" / "cat")
    (root / "train" / "cat").symlink_to(root / "elsewhere" / "cat")
    _check(_load(root, "train"), per_class=4)


def test_folders_that_link_to_each_other_end(root: Path) -> None:
    """Two links each: 2^40 ways, if the system alone ended them."""
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    for name in ("a", "b"):
        (cat / name).symlink_to(dog)
        (dog / name).symlink_to(cat)
    found = [path.relative_to(cat).as_posix() for path in files_below(cat)]
    want = [f"{way}{i}.png" for way in ("", "a/", "b/") for i in range(3)]
    assert sorted(found) == sorted(want)


@pytest.mark.parametrize("grey", ["train/cat/0.png", "train/dog/2.png"])
@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_one_colour_image_makes_all_of_them_colour(
    root: Path, grey: str, mode: str
) -> None:
    level = LEVEL[grey.split("/")[1]]
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), level * 257, np.uint16)).save(root / grey)
    else:
        _save(root / grey, level if mode != "1" else 255, mode=mode)
    data = _load(root, "train")
    assert data.shape == (3, 8, 8)
    assert any("1 of the 6 images" in note and "grey" in note for note in data.notes)
    if mode != "1":
        _check(data)


def test_grey_in_every_split_stays_grey(root: Path) -> None:
    for path in root.rglob("*.png"):
        _save(path, LEVEL[path.parent.name], mode="L")
    for split in ("train", "test"):
        data = _load(root, split)
        assert (data.shape, data.notes) == ((1, 8, 8), ())
        _check(data)
    _save(root / "test" / "dog" / "1.png", LEVEL["dog"])
    assert _load(root, "train").shape == (3, 8, 8)


def test_mixed_sizes_are_refused_unless_a_shape_is_asked_for(root: Path) -> None:
    _save(root / "train" / "cat" / "1.png", LEVEL["cat"], side=13)
    with pytest.raises(
        UserError, match=r"8x8 \(5\), 13x13 \(1\); cat/1\.png is the first .*own@3x8x8"
    ) as e:
        _load(root, "train")
    assert f"imagefolder:{root}@3x8x8" in str(e.value)
    data = _load(root, "train", "@3x10x6")
    assert (data.shape, data.name) == ((3, 10, 6), "imagefolder:own@3x10x6")
    _check(data)
    with pytest.raises(UserError, match=r"asks for 1 channel"):
        _load(root, "train", "@1x8x8")


def test_a_folder_may_have_the_mark_of_a_shape_in_its_name(tmp_path: Path) -> None:
    root = _make(tmp_path / "me@home")
    assert _load(root, "test").name == "imagefolder:me@home"
    assert _load(root, "test", "@3x4x4").shape == (3, 4, 4)


def test_a_shape_keeps_proportions_and_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    root = _make(tmp_path)
    for path in root.rglob("*.png"):
        Image.fromarray(wide).save(path)
    data = _load(root, "test", "@3x10x10")
    middle = data.images([0])[0, :, :, 2:8]  # the edges blend with what was cut off
    torch.testing.assert_close(middle, torch.full_like(middle, 200 / 255))


def test_val_is_read_and_stands_in_for_a_missing_test(tmp_path: Path) -> None:
    root = _make(tmp_path / "own", split="val")
    for split in ("val", "test"):
        data = _load(root, split)
        assert (data.split, data.labels.tolist()) == ("val", [0, 0, 0, 1, 1, 1])
        _check(data)
    assert any("val was read in its place" in note for note in data.notes)
    _make(root)
    assert _load(root, "test").split == "test"
    registered = _make(tmp_path / "cifar10-jpeg", split="val")
    with pytest.raises(UserError, match=r"no folder .*holds train, val"):
        datasets.load("cifar10-jpeg", "test", data_dir=registered.parent)
    with pytest.raises(UserError, match="unknown split 'val'"):
        datasets.load("cifar10-jpeg", "val", data_dir=registered.parent)


def test_a_missing_split_says_what_is_there(tmp_path: Path) -> None:
    root = _make(tmp_path / "own", split="validation")
    with pytest.raises(UserError, match=r"no folder .*test; .*holds train, validation"):
        _load(root, "test")
    with pytest.raises(UserError, match=r"train2/train; nor .*train2; expected PATH"):
        _load(tmp_path / "train2", "train")
    with pytest.raises(UserError, match="unknown split 'tests'; did you mean 'test'"):
        _load(root, "tests")
    shutil.rmtree(root / "train" / "dog")
    with pytest.raises(UserError, match=r"train has 1 class folders \('cat'\)"):
        _load(root, "train")


def test_truncated_images_are_named(root: Path) -> None:
    path = root / "test" / "dog" / "9.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"cannot read image .*dog/9\.jpg: "):
        _load(root, "test").images(slice(None))


@pytest.mark.parametrize("shape", ["", "@3x8x8", "@3x5x9"])
def test_no_images_are_images_too(root: Path, shape: str) -> None:
    data = _load(root, "test", shape)
    nothing: tuple[list[int] | slice | torch.Tensor, ...] = (
        [],
        slice(0, 0),
        torch.zeros(0, dtype=torch.int64),
    )
    for none in nothing:
        found = data.images(none)
        assert (found.shape, found.dtype) == ((0, *data.shape), torch.float32)
