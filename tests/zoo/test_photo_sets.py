"""The sets of transfer papers, read from small copies of their true layouts."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import hub_stub
import numpy as np
import pytest
from photo_layouts import LAYOUTS, level
from PIL import Image

from zoo import datasets
from zoo.errors import MissingDatasetError, UserError
from zoo.records import Examples, Verdict
from zoo.verdicts import mean_per_class

NATIVE = {"eurosat": 64, "pcam": 96, "tiny-imagenet": 64}
PER_CLASS = ("caltech-101", "fgvc-aircraft", "flowers-102", "oxford-pets")


def made(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy; of flowers-102 torchvision checks hashes, which no copy can have."""
    if name == "pcam":
        pytest.importorskip("h5py")
    if name == "flowers-102":
        from torchvision.datasets import Flowers102

        files = {key: (file, None) for key, (file, _) in Flowers102._file_dict.items()}
        monkeypatch.setattr(Flowers102, "_file_dict", files)
    LAYOUTS[name][0](root)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_image_has_the_label_of_its_class(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(name, tmp_path, monkeypatch)
    _, *labels = LAYOUTS[name]
    for split, want in zip(("train", "test"), labels, strict=True):
        data = datasets.load(f"{name}@3x16x16", split, data_dir=tmp_path)
        assert (data.name, data.shape) == (f"{name}@3x16x16", (3, 16, 16))
        assert (data.split, data.labels.tolist()) == (split, want)
        means = data.images(slice(None)).mean(dim=(1, 2, 3)).mul(255)
        np.testing.assert_allclose(means, [level(label) for label in want], atol=2.0)
    usual = datasets.load(name, "test", data_dir=tmp_path)
    side = NATIVE.get(name, 224)
    assert (usual.name, usual.shape) == (name, (3, side, side))
    assert usual.shape == datasets.get(name).shape
    assert usual.images([0]).shape == (1, 3, side, side)


def test_drawn_splits_do_not_overlap_and_are_the_same_again(tmp_path: Path) -> None:
    LAYOUTS["caltech-101"][0](tmp_path)
    files = sorted(tmp_path.rglob("*.jpg"))
    for i, path in enumerate(files):
        Image.new("RGB", (9, 9), (i, 2 * i, i)).save(path.with_suffix(".png"))
        path.with_suffix(".png").rename(path)

    def colours(split: str) -> list[tuple[int, ...]]:
        data = datasets.load("caltech-101@3x8x8", split, data_dir=tmp_path)
        pixels = data.integers(slice(None))[:, :, 4, 4]
        return [tuple(pixel) for pixel in pixels.tolist()]

    train, test = colours("train"), colours("test")
    assert len({*train, *test}) == len(train) + len(test) == len(files) - 1
    assert (colours("train"), colours("test")) == (train, test)


def test_the_published_partition_of_sun397(tmp_path: Path) -> None:
    """Its lists, in the set's folder or as Partitions.zip unpacks; nothing is drawn."""
    LAYOUTS["sun397"][0](tmp_path)
    root = tmp_path / "SUN397"
    want = datasets.load("sun397@3x8x8", "train", data_dir=tmp_path).fingerprint()
    (root / "Partitions").mkdir()
    for name in ("Training_01.txt", "Testing_01.txt"):
        (root / name).rename(root / "Partitions" / name)
    again = datasets.load("sun397@3x8x8", "train", data_dir=tmp_path)
    assert (len(again), again.fingerprint()) == (4, want)
    (root / "a" / "abbey" / "sun_002.jpg").unlink()
    with pytest.raises(MissingDatasetError, match=r"1 of 2 images .*abbey/sun_002"):
        datasets.load("sun397", "test", data_dir=tmp_path)
    (root / "Partitions" / "Testing_01.txt").unlink()
    with pytest.raises(MissingDatasetError, match=r"no Testing_01.txt; unpack Part"):
        datasets.load("sun397", "test", data_dir=tmp_path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_missing_says_where_it_is_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingDatasetError, match="was not found in") as error:
        datasets.load(name, "test", data_dir=tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "--data-dir" in str(error.value)
    assert list(tmp_path.iterdir()) == [], "nothing is made, nothing is downloaded"


def test_a_broken_copy_is_told(tmp_path: Path) -> None:
    LAYOUTS["dtd"][0](tmp_path)
    (tmp_path / "dtd/dtd/labels/val1.txt").unlink()
    with pytest.raises(MissingDatasetError, match=r"as torchvision has it .*val1\.txt"):
        datasets.load("dtd", "train", data_dir=tmp_path)


def test_metrics_are_those_of_the_field() -> None:
    rows = datasets.registry().values()
    found = [row.name for row in rows if row.metric == "mean-per-class"]
    assert sorted(found) == sorted(PER_CLASS)
    assert datasets.is_per_class("flowers-102@3x96x96")
    assert not datasets.is_per_class("imagefolder:flowers-102")


def test_means_over_classes_count_each_class_once() -> None:
    """By hand: class 0 has 4 images, class 2 has one, class 1 none."""
    examples = Examples(
        index=[0, 1, 2, 3, 4],
        label=[0, 0, 0, 0, 2],
        clean_prediction=[0, 0, 0, 2, 2],
        verdict=[
            *(Verdict.ROBUST, Verdict.FOOLED, Verdict.FOOLED),
            *(Verdict.MISCLASSIFIED, Verdict.ROBUST),
        ],
    )
    found = mean_per_class(examples)
    assert (found.clean, found.robust) == ((0.75 + 1) / 2, (0.25 + 1) / 2)
    assert found.classes == 2


def test_a_wrong_md5_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps({"data": [], "labels": []}))
    for split in ("train", "test"):
        with pytest.raises(UserError, match=r"test_batch is there, but its MD5") as e:
            datasets.load("cifar10", split, data_dir=tmp_path)
        assert "not found" not in str(e.value)
    (tmp_path / "test_32x32.mat").write_bytes(b"x")
    with pytest.raises(UserError, match=r"test_32x32\.mat is there, but its MD5"):
        datasets.load("svhn", "test", data_dir=tmp_path)


def parquet(root: Path, mode: str = "RGB") -> Path:
    """A repository's folder of parquet files, written by the library."""
    library = pytest.importorskip("datasets")
    features = library.Features(
        {"image": library.Image(), "label": library.ClassLabel(names=["cat", "dog"])}
    )
    for split, count in (("train", 4), ("validation", 3)):
        rows: dict[str, list[Any]] = {"image": [], "label": []}
        for i in range(count):
            colour = (level(i % 2),) * 3
            image = Image.new("RGB", (10 + i, 12), colour).convert(mode)
            rows["image"].append(image)
            rows["label"].append(i % 2)
        (root / "data").mkdir(parents=True, exist_ok=True)
        library.Dataset.from_dict(rows, features=features).to_parquet(
            root / "data" / f"{split}-00000-of-00001.parquet"
        )
    return root


SCRIPT = """
from zoo import datasets, errors
for name in ("hf-datasets:org/pets", "hf-datasets:org/pets:validation"):
    try:
        data = datasets.load(name, "test")
        print(data.name, data.split, len(data), data.classes, data.labels.tolist())
    except errors.MissingDatasetError as error:
        print("missing:", error)
"""


@pytest.mark.slow
def test_a_repository_of_the_hub_by_the_real_client(tmp_path: Path) -> None:
    """As somebody's process reads it: over HTTP, then offline from the cache."""
    root = parquet(tmp_path / "own")
    files = {f"data/{path.name}": path.read_bytes() for path in root.glob("data/*")}
    told = []
    with hub_stub.hub() as hub:
        hub.commits["datasets/org/pets"] = [{"README.md": b"# Pets\n", **files}]
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        for offline in ("0", "1"):
            asked = len(hub.asked)
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT],
                env={**env, "ROBREP_OFFLINE": offline, "HF_HUB_OFFLINE": "0"},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            told.append(done.stdout.splitlines())
        assert len(hub.asked) == asked, "no request where the network is not wanted"
    name = "hf-datasets:org/pets"
    assert told[0][0].startswith(f"missing: '{name}' could not be loaded (split 'test'")
    assert told[0][1] == f"{name}:validation test 3 ('cat', 'dog') [0, 1, 0]"
    assert told[1][1] == told[0][1]


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_splits_of_hugging_face_by_the_library_itself(
    mode: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = parquet(tmp_path / "own", mode)
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    name = f"hf-datasets:{root}:validation@{channels}x8x8"
    test, train = (datasets.load(name, split) for split in ("test", "train"))
    recorded = f"hf-datasets:own:validation@{channels}x8x8"
    assert (test.name, test.shape) == (recorded, (channels, 8, 8))
    assert (len(train), len(test), test.classes) == (4, 3, ("cat", "dog"))
    for data in (train, test):
        want = [level(label) / 255 for label in data.labels.tolist()]
        means = data.images(slice(None)).mean(dim=(1, 2, 3))
        np.testing.assert_allclose(means, want, atol=1e-6)
    plain = datasets.load(f"hf-datasets:{root}:validation", "test")
    with pytest.raises(UserError, match=r"bring all to one, as hf-datasets:.*@3x224"):
        plain.images(slice(None))


def shards(root: Path, *, last: int = 2) -> Path:
    """Shards of webdataset, as tar files: two to train on and one to test on."""
    pytest.importorskip("datasets")
    root.mkdir(parents=True)
    of_split = {"train-0000": (0, 1), "train-0001": (0, 1), "test-0000": (1, last)}
    for shard, labels in of_split.items():
        with tarfile.open(root / f"{shard}.tar", "w") as tar:
            for i, label in enumerate(labels):
                file = io.BytesIO()
                colour = (level(label),) * 3
                Image.new("RGB", (10 + i, 12), colour).save(file, "PNG")
                for kind, body in (
                    ("png", file.getvalue()),
                    ("cls", str(label).encode()),
                ):
                    entry = tarfile.TarInfo(f"{shard}-{i}.{kind}")
                    entry.size = len(body)
                    tar.addfile(entry, io.BytesIO(body))
    return root


def test_shards_of_webdataset_by_the_library_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are numbers; one that only the other split has is a class of both."""
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    name = f"hf-datasets:{shards(tmp_path / 'own')}@3x8x8"
    test, train = (datasets.load(name, split) for split in ("test", "train"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 0, 1], [1, 2])
    assert train.classes == test.classes == ("0", "1", "2")
    for data in (train, test):
        want = [level(label) / 255 for label in data.labels.tolist()]
        means = data.images(slice(None)).mean(dim=(1, 2, 3))
        np.testing.assert_allclose(means, want, atol=1e-6)


def test_a_shard_with_a_negative_label_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    root = shards(tmp_path / "own", last=-1)
    with pytest.raises(UserError, match=r"without a label of 0 or more \(column cls"):
        datasets.load(f"hf-datasets:{root}", "train")


def test_what_hugging_face_cannot_load_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = parquet(tmp_path / "own")
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    with pytest.raises(MissingDatasetError, match="split 'test'"):
        datasets.load(f"hf-datasets:{root}", "test")
    with pytest.raises(MissingDatasetError, match="could not be loaded"):
        datasets.load(f"hf-datasets:{tmp_path}/none", "test")
    library = pytest.importorskip("datasets")
    library.Dataset.from_dict({"a": [1], "b": [2]}).to_parquet(
        root / "data/test.parquet"
    )
    with pytest.raises(UserError, match=r"could not be loaded|one Image and one"):
        datasets.load(f"hf-datasets:{root}", "test")
