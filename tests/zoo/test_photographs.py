"""Photographs of many sizes, folders without splits, and lists of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from robrep_eval import evaluate
from zoo import datasets
from zoo.datasets.names import Reading, shaped_name, split_name, with_options
from zoo.encoder import Encoder, EncoderSpec
from zoo.errors import UserError
from zoo.records import Result
from zoo.verification import verify_folder

SIZES = ((40, 60), (90, 50), (64, 64), (37, 41))


def photograph(path: Path, size: tuple[int, int], seed: int) -> Image.Image:
    """Smooth noise in colour, so that interpolations differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes, nested, of mixed sizes, without splits; ten and five images."""
    root = tmp_path / "my photos"
    for name, count in (("cat", 10), ("dog", 5)):
        for i in range(count):
            place = root / name / ("old" if i % 2 else ".") / f"{i}.png"
            photograph(place, SIZES[i % 4], seed=i + 10 * (name == "dog"))
    return root


def by_pillow(
    image: Image.Image, crop: int, resize: int, kind: Image.Resampling
) -> npt.NDArray[np.uint8]:
    """The field's transform, written out."""
    width, height = image.size
    if width < height:
        image = image.resize((resize, int(resize * height / width)), kind)
    else:
        image = image.resize((int(resize * width / height), resize), kind)
    left = round((image.width - crop) / 2)
    top = round((image.height - crop) / 2)
    return np.asarray(image.crop((left, top, left + crop, top + crop)))


@pytest.mark.parametrize(
    ("suffix", "resize", "kind"),
    [
        ("", 37, Image.Resampling.BICUBIC),
        ("-r48", 48, Image.Resampling.BICUBIC),
        ("-bilinear", 37, Image.Resampling.BILINEAR),
        ("-r32-bilinear", 32, Image.Resampling.BILINEAR),
    ],
)
def test_mixed_sizes_become_what_the_field_makes_of_them(
    suffix: str, resize: int, kind: Image.Resampling, tmp_path: Path
) -> None:
    want = []
    for split in ("train", "test"):
        for at, name in enumerate(("cat", "dog")):
            for i, size in enumerate(SIZES):
                path = tmp_path / split / name / f"{i}.png"
                image = photograph(path, size, seed=10 * at + i)
                if split == "test":
                    want.append(by_pillow(image, 32, resize, kind))
    name = f"imagefolder:{tmp_path}@3x32x32{suffix}"
    data = datasets.load(name, "test")
    assert data.name == f"imagefolder:{tmp_path.name}@3x32x32{suffix}"
    assert data.shape == (3, 32, 32)
    found = data.integers(slice(None)).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(found, np.stack(want))


def test_224_is_cut_out_of_256(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            image = photograph(tmp_path / split / name / "0.png", (500, 375), seed=1)
    data = datasets.load(f"imagefolder:{tmp_path}@3x224x224", "test")
    want = by_pillow(image, 224, 256, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(
        data.integers([1])[0].numpy().transpose(1, 2, 0), want
    )


def test_sets_of_one_size_take_it_when_they_are_told(tmp_path: Path) -> None:
    plain = datasets.load("digits", "test")
    data = datasets.load("digits@3x28x28-r28-bicubic", "test")
    assert data.shape == (3, 28, 28)
    eight = (plain.images([3])[0, 0] * 255).round().byte().numpy()
    want = Image.fromarray(eight).resize((28, 28), Image.Resampling.BICUBIC)
    for channel in data.integers([3])[0].numpy():
        np.testing.assert_array_equal(channel, np.asarray(want))


@given(
    st.builds(
        Reading,
        shape=st.sampled_from([(1, 28, 28), (3, 224, 224), (3, 8, 10)]),
        resize=st.none() | st.integers(224, 400),
        interpolation=st.sampled_from([None, "bicubic", "bilinear"]),
        share=st.integers(1, 99),
        seed=st.none() | st.integers(0, 10**9 - 1),
    )
)
def test_a_name_says_all_of_how_images_are_read(reading: Reading) -> None:
    name = shaped_name("imagefolder:/a/b@home", reading)
    assert split_name(name) == ("imagefolder:/a/b@home", reading)


def test_options_are_part_of_the_name() -> None:
    options = {"crop": 224, "resize": 232, "interpolation": "Bilinear"}
    assert with_options("stl10", options) == "stl10@3x224x224-r232-bilinear"
    assert with_options("imagefolder:x", {"test_share": "20%", "split_seed": 3}) == (
        "imagefolder:x@test20-seed3"
    )
    assert with_options("imagefolder:x@3x8x8", {"test_share": 0.07}) == (
        "imagefolder:x@3x8x8-test7"
    )
    assert with_options("digits@1x28x28", {"crop": 28}) == "digits@1x28x28"


BAD = [
    ("digits", {"resize": 8}, "say to what size"),
    ("digits", {"crop": 0}, "--crop must be 1 to 9999, not 0"),
    ("digits", {"crop": 28, "resize": 20}, "less than what is cut out of it"),
    ("digits@1x28x28", {"crop": 32}, "differ: shape"),
    ("digits", {"crop": 8, "interpolation": "bicubik"}, "did you mean 'bicubic'"),
    ("digits", {"test_share": "20%"}, "has splits of its own"),
    ("imagefolder:x", {"test_share": "0"}, "no share of test images"),
    ("imagefolder:x", {"test_share": "12.5%"}, "in whole per cent"),
    ("imagefolder:x", {"split_seed": 1}, "has a seed, but no share"),
    ("imagefolder:x", {"test_share": "20%", "split_seed": -1}, "--split-seed must be"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_options_that_make_no_sense(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        with_options(name, options)


def test_a_folder_without_splits_is_parted_by_class(photographs: Path) -> None:
    def levels(split: str, reading: str) -> list[tuple[int, int]]:
        data = datasets.load(f"imagefolder:{photographs}@{reading}", split)
        sums = data.integers(slice(None)).sum(dim=(1, 2, 3)).tolist()
        return list(zip(data.labels.tolist(), sums, strict=True))

    train, test = levels("train", "3x8x8-test20"), levels("test", "3x8x8-test20")
    assert [label for label, _ in test] == [0, 0, 1]
    assert len({*train, *test}) == 15, "no image is in both"
    assert levels("test", "3x8x8-test20") == test
    assert levels("test", "3x8x8-test20-seed0") == test
    seeds = {tuple(levels("test", f"3x8x8-test20-seed{i}")) for i in range(5)}
    assert len(seeds) > 1
    with pytest.raises(UserError, match=r"no folder .*--test-share 20%"):
        datasets.load(f"imagefolder:{photographs}", "test")
    with pytest.raises(UserError, match="there is no val"):
        datasets.load(f"imagefolder:{photographs}@3x8x8-test20", "val")
    photograph(photographs / "emu" / "0.png", (9, 9), seed=0)
    with pytest.raises(UserError, match="cannot be taken from each class alike"):
        datasets.load(f"imagefolder:{photographs}@3x8x8-test20", "test")
    (photographs / "test").mkdir()
    with pytest.raises(UserError, match=r"has splits already \(test\)"):
        datasets.load(f"imagefolder:{photographs}@3x8x8-test20", "test")


def list_of(root: Path, lines: str, name: str = "list.csv") -> str:
    (root / name).write_text(lines, encoding="utf-8")
    return f"imagelist:{root / name}"


def test_a_list_names_images_labels_and_splits(tmp_path: Path) -> None:
    for i in range(6):
        photograph(tmp_path / "p" / f"{i}.png", (8, 8), seed=i)
    name = list_of(
        tmp_path,
        '\ufeffsplit,path,label,who\ntrain,p/0.png,"a, b",x\ntrain,p/1.png,c,x\n'
        'train,p/2.png,c,y\nval,p/3.png,c,z\nval,p/4.png,"a, b",\n',
    )
    train, test = (datasets.load(name, split) for split in ("train", "test"))
    assert train.classes == ("a, b", "c")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 1], [1, 0])
    assert (test.split, train.name) == ("val", "imagelist:list.csv")
    assert "val was read" in test.notes[0]
    with Image.open(tmp_path / "p" / "3.png") as image:
        want = np.asarray(image).transpose(2, 0, 1)
    np.testing.assert_array_equal(test.integers([0])[0].numpy(), want)
    numbers = "".join(f"p/{i}.png,{label}\n" for i, label in enumerate((2, 10, 2, 10)))
    name = list_of(tmp_path, f"path,label\n{numbers}", "n.csv")
    parted = datasets.load(f"{name}@test50", "train")
    assert (parted.classes, len(parted)) == (("2", "10"), 2)
    with pytest.raises(UserError, match="--test-share 20%"):
        datasets.load(name, "test")


HEAD = "path,label,split\np/0.png,a,train\np/1.png,b,train\n"
BROKEN = [
    ("a,b\n", "has no column path, label (columns: a, b)"),
    ("", "has no column path, label"),
    ("path,label,split\n", "names no images"),
    (f"{HEAD}p/2.png,a,tset\n", "line 4 of "),
    (f"{HEAD}p/2.png,a,tset\n", "did you mean 'test'"),
    (f"{HEAD}p/2.png,,test\n", "has no label"),
    (f"{HEAD},a,test\n", "has no path"),
    (f"{HEAD}p/0.png,a,test\n", "names p/0.png again"),
    (f"{HEAD}p/9.png,a,test\n", "paths are relative to the list"),
    (f"{HEAD}p/2.png,z,test\n", "of class 'z', of which train has none"),
    (f"{HEAD}list.csv,a,test\n", "cannot read image"),
    (HEAD, "no images of split test"),
    (f"{HEAD}p/\0.png,a,test\n", "list.csv"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_broken_lists_are_named(text: str, message: str, tmp_path: Path) -> None:
    for i in range(3):
        photograph(tmp_path / "p" / f"{i}.png", (8, 8), seed=i)
    with pytest.raises(UserError) as error:
        datasets.load(list_of(tmp_path, text), "test")
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_binary_and_missing_lists(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(UserError, match="no text in UTF-8"):
        datasets.load(f"imagelist:{tmp_path}/b.csv", "test")
    with pytest.raises(UserError, match=r"none\.csv"):
        datasets.load(f"imagelist:{tmp_path}/none.csv", "test")


def test_a_folder_without_splits_from_options_to_verified(
    photographs: Path, tmp_path: Path
) -> None:
    """The record says how images were read; a run with other options is another."""
    options = {"widths": [4, 8], "blocks": [1, 1]}
    spec = EncoderSpec(arch="resnet_s8", options=options, shape=(3, 8, 8))
    torch.manual_seed(0)

    def run(split_seed: int | None) -> Result:
        return evaluate(
            Encoder(spec),
            f"imagefolder:{photographs}",
            crop=8,
            test_share="20%",
            split_seed=split_seed,
            eps=0.01,
            attacks="fgsm",
            measure=(),
            output=tmp_path / "run",
        )

    torch.manual_seed(0)
    found = run(None).dataset
    assert found.name == "imagefolder:my photos@3x8x8-test20"
    assert (found.n, found.shape) == (3, (3, 8, 8))
    assert list(verify_folder(tmp_path / "run"))
    torch.manual_seed(0)
    with pytest.raises(UserError, match="holds another evaluation"):
        run(1)
    for none in ({"crop": 8}, {"test_share": "20%"}):
        with pytest.raises(UserError, match="name the images that --"):
            evaluate("zoo:tarrl-digits", **none)
