"""images:PATH: a folder of photographs without labels, through the commands."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.cli import command
from pretrain.recipe import validate
from pretrain.train import train
from robrep_eval import evaluate
from robrep_eval.commands.cli import cli
from zoo import datasets
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder, EncoderSpec, load_encoder, save_encoder
from zoo.errors import UserError

ORDER = ("a.jpg", "b/0.png", "b/deep/er/1.jpg", "b.jpg", "c/2024 05/x.jpg", "z.JPEG")
"""Folder by folder, each sorted by name: "b" before "b.jpg"."""
SIZED = "@3x8x8"
FARE = ("--method", "fare", "--norm", "Linf", "--eps", "4/255", "--batch", "8")
FAST = ("--epochs", "2", "-o", "attack.steps=1", "-o", "monitor.steps=1")
LOOKS = ("-o", "monitor.every=1", "-o", "checkpoint_minutes=0")
TINY = ("-o", "arch_options.widths=[4,8]", "-o", "arch_options.blocks=[1,1]")


def _photos(root: Path) -> Path:
    """Of one size and level 10, 20, ... in their order."""
    for at, name in enumerate(ORDER, start=1):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10, 12, 3), 10 * at, np.uint8)).save(path)
    return root


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Forty JPEGs of three sizes, some of them in folders."""
    draw = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "photos" / ("", "x", "x/y")[i % 3] / f"{i:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (10 + i % 3, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An encoder of a few thousand weights."""
    torch.manual_seed(0)
    options = {"img_size": 8, "patch_size": 4, "embed_dim": 24, "depth": 1}
    spec = EncoderSpec(
        arch="timm:vit_tiny_patch16_224",
        options={**options, "num_heads": 2},
        shape=(3, 8, 8),
        mean=(0.5,),
        std=(0.25,),
    )
    save_encoder(Encoder(spec).eval(), tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


def _levels(data: Dataset) -> list[int]:
    means = data.images(slice(None)).mean(dim=(1, 2, 3)) * 255
    return [10 * round(float(level) / 10) for level in means]


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return card


def _refused(*words: str) -> str:
    """Why a command in a process of its own ends with 2; one line, no traceback."""
    code, out, err = commands.run(*words)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    return line


def test_images_at_any_depth_are_sorted_by_path(tmp_path: Path) -> None:
    root = _photos(tmp_path / "photos")
    data = datasets.load(f"images:{root}", "train")
    assert _levels(data) == [10, 20, 30, 40, 50, 60]
    assert (data.name, data.shape) == ("images:photos", (3, 10, 12))
    assert (data.labelled, data.classes, data.notes) == (False, (), ())
    assert _levels(data.take(3)) == [10, 30, 60]  # not the first ones
    name = f"images:{root}@3x4x6-r8-bilinear"
    sized = datasets.load(name, "train", called="mine")
    assert (sized.name, sized.shape) == ("images:mine@3x4x6-r8-bilinear", (3, 4, 6))
    assert _levels(sized) == [10, 20, 30, 40, 50, 60]


def test_what_does_not_count_and_where_links_lead(tmp_path: Path) -> None:
    root = _photos(tmp_path / "photos")
    before = datasets.load(f"images:{root}", "train").fingerprint()
    for hidden in (".cache/1.jpg", "b/._0.png"):
        (root / hidden).parent.mkdir(exist_ok=True)
        (root / hidden).write_bytes(b"no image")
    (root / "b" / "back").symlink_to(root)
    plain = datasets.load(f"images:{root}", "train")
    assert (plain.fingerprint(), plain.notes) == (before, ())
    (root / "b" / "list.txt").write_text("0.png")
    (root / "empty.png").touch()
    said = datasets.load(f"images:{root}", "train")
    assert said.fingerprint() == before
    assert said.notes == (
        "Files of photos that are empty or no images: b/list.txt, empty.png.",
    )
    (tmp_path / "elsewhere").mkdir()
    (root / "z.JPEG").rename(tmp_path / "elsewhere" / "0.jpg")
    (root / "zz").symlink_to(tmp_path / "elsewhere")
    assert datasets.load(f"images:{root}", "train").fingerprint() == before


def test_the_files_have_a_fingerprint_that_follows_their_bytes(tmp_path: Path) -> None:
    root = _photos(tmp_path / "photos")
    data = datasets.load(f"images:{root}{SIZED}", "train")
    assert data.hash_files is not None
    each = [hashlib.sha256((root / name).read_bytes()).digest() for name in ORDER]
    assert data.hash_files() == hashlib.sha256(b"".join(each)).hexdigest()


def test_the_listing_of_files_follows_names_and_sizes_not_the_place(
    tmp_path: Path,
) -> None:
    def listing(name: str) -> str:
        data = datasets.load(f"images:{tmp_path / name}{SIZED}", "train")
        assert data.list_files is not None
        return data.list_files()

    root = _photos(tmp_path / "photos")
    first = listing("photos")
    root.rename(tmp_path / "moved")
    assert listing("moved") == first
    (tmp_path / "moved" / "a.jpg").rename(tmp_path / "moved" / "a2.jpg")
    renamed = listing("moved")
    with (tmp_path / "moved" / "a2.jpg").open("ab") as stream:
        stream.write(b"x")
    longer = listing("moved")
    (tmp_path / "moved" / "z.JPEG").unlink()
    assert len({first, renamed, longer, listing("moved")}) == 4


def test_a_run_goes_on_with_the_photographs_it_began_with_alone(noise: Path) -> None:
    out = noise.parent / "run"
    recipe = validate(
        {
            "name": "x",
            "method": "simclr",
            "data": f"images:{noise}{SIZED}",
            "batch": 8,
            "epochs": 1,
            "draws": "image",
            "arch_options": {"widths": [4, 8], "blocks": [1, 1]},
        }
    )
    train(recipe, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    shutil.copy(noise / "000.jpg", noise / "one more.jpg")
    with pytest.raises(UserError, match="files of 'images:photos@3x8x8' are others"):
        train(recipe, out)
    assert {path: path.read_bytes() for path in before} == before
    (noise / "one more.jpg").unlink()
    train(recipe, out)
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    state.pop("images")  # as robrep wrote it before
    torch.save(state, out / "checkpoint.pt")
    shutil.copy(noise / "000.jpg", noise / "one more.jpg")
    train(recipe, out)


def test_labels_that_are_not_there_are_never_made_up(tmp_path: Path) -> None:
    data = datasets.load(f"images:{_photos(tmp_path / 'photos')}", "train")
    with pytest.raises(UserError, match="'images:photos' have no labels"):
        _ = data.labels
    with pytest.raises(UserError, match="'images:photos' have no labels"):
        data.take(3, stratified=True)
    (tmp_path / "grey").mkdir()
    for at in range(4):
        Image.new("L", (8, 8), 60 * at).save(tmp_path / "grey" / f"{at}.png")
    data = datasets.load(f"images:{tmp_path / 'grey'}", "train")
    with pytest.raises(UserError, match="'images:grey' have no labels"):
        evaluate("zoo:tarrl-digits", data, train=data, eps=0.1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("images:photos", r"have 2 sizes, .*as images:photos@3x"),
        ("images:", "'images:' names no place; write images:PATH"),
        ("images:@3x8x8", "'images:' names no place; write images:PATH"),
        ("images:photos@3x8", "'3x8' in dataset 'images:photos@3x8' is no shape; "),
        ("images:nothing@3x8", "no folder nothing@3x8; "),
        ("images:nothing", "no folder nothing; images:PATH names a folder of images"),
        ("images:texts", r"texts holds no image that can be read, but 1\.txt; images"),
        ("images:photos@3x8x8-test20", "has no labels, so none of it is for test"),
        ("images:broken@3x8x8", r"cannot read image broken/c/no\.jpg: "),
        ("imagefolder:photos", r"without labels, for robrep-pretrain alone: images:"),
        ("photos", r"your own images: .*, without labels images:PATH"),
    ],
)
def test_folders_that_cannot_be_read(
    data: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _photos(Path("photos"))
    Image.new("RGB", (20, 20)).save("photos/last.jpg")
    Path("texts").mkdir()
    Path("texts/1.txt").write_text("x")
    _photos(Path("broken"))
    Path("broken/c/no.jpg").write_bytes(b"no image")
    words = ("--method", "simclr", "--epochs", "1", "--data", data, "--output", "run")
    with pytest.raises(UserError, match=reason):
        raise UserError(commands.refusal(command, *words))
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--method", "pgd-at"),
        ("--method", "trades"),
        ("--method", "deacl", "-o", "teacher={method: pgd-at, epochs: 1}"),
    ],
)
def test_methods_that_need_labels_are_refused_before_images_are_read(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    threat = ("--norm", "Linf", "--eps", "0.1", "--epochs", "1")
    data = ("--data", f"images:{tmp_path / 'photos'}", "--output", str(out))
    reason = commands.refusal(command, *words, *threat, *data)
    assert "trains on labels, which the images of 'images:photos' do not" in reason
    assert not out.exists()


@pytest.mark.slow
def test_from_a_folder_to_an_encoder(noise: Path, base: Path) -> None:
    out = noise.parent / "run"
    words = ("--init", str(base), "--data", f"images:{noise}{SIZED}", *FARE, *FAST)
    code, said, err = commands.run("pretrain", *words, "--estimate")
    assert code == 0, err
    assert "36 images, 2 epochs of 4 steps" in said
    assert not out.exists()
    code, said, err = commands.run(
        "pretrain", *words, *LOOKS, "--workers", "1", "--output", str(out)
    )
    assert code == 0, err
    assert "36 images (4 held out)" in err
    assert "epoch 2: held-out drift " in err
    card = _card(out / "last")
    training = card["training"]
    assert training["dataset"] == "images:photos@3x8x8"
    seen = datasets.load(f"images:{noise}{SIZED}", "train")
    assert seen.hash_files is not None
    assert training["recipe"]["images"] == {
        "count": 40,
        "labels": False,
        "files_sha256": seen.hash_files(),
    }
    assert "images:photos@3x8x8 (40 images without labels)" in card["description"]
    assert str(noise.parent) not in json.dumps(training)
    assert (out / "best" / "model.safetensors").is_file()
    reason = _refused("robrep_eval", "--model", str(out / "last"))
    assert "'images:photos' is images without labels, which can only be" in reason
    reason = _refused("pretrain", "--method", "pgd-at", *words[2:4], *FARE[2:])
    assert "method 'pgd-at' trains on labels" in reason


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(noise: Path, base: Path) -> None:
    words = ("--init", str(base), "--data", f"images:{noise}{SIZED}", *FARE, *FAST)
    command_line = ("pretrain", *words, *LOOKS, "--epochs", "6", "-q", "--output")
    cut, whole = noise.parent / "cut", noise.parent / "whole"
    process = commands.start(*command_line, str(cut), OMP_NUM_THREADS="1")
    commands.until((cut / "checkpoint.pt").exists, process)
    process.kill()
    process.communicate()
    for folder in (cut, whole):
        code, _, err = commands.run(*command_line, str(folder), OMP_NUM_THREADS="1")
        assert code == 0, err
    found = [load_encoder(run / "last" / "model.safetensors") for run in (cut, whole)]
    first, second = (encoder.state_dict() for encoder in found)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    cards = [_card(run / "last")["training"]["recipe"] for run in (cut, whole)]
    assert cards[0]["images"] == cards[1]["images"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "threat", "said", "held"),
    [
        ("rocl", FARE[2:6], "epoch 2: held-out universal quantile ", 4),
        ("simclr", (), "no look at held-out images", 0),
    ],
)
def test_from_nothing_the_look_needs_no_labels_either(
    method: str, threat: tuple[str, ...], said: str, held: int, noise: Path
) -> None:
    out = noise.parent / "run"
    code, _, err = commands.run(
        *("pretrain", "--method", method, "--data", f"images:{noise}{SIZED}"),
        *("--arch", "resnet_s8", "--batch", "8", "--output", str(out)),
        *(*threat, *FAST, *LOOKS, *TINY),
    )
    assert code == 0, err
    assert said in err
    assert f"{40 - held} images ({held} held out)" in err
    assert (out / "best").exists() == bool(held)
    card = _card(out / "last")
    assert card["training"]["labels"] is False
    assert card["description"].count("without labels") == 2


def test_a_name_of_ones_own_leads_to_the_same_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _photos(Path("photos"))
    words = ("--model", "zoo:tarrl-digits", "--dataset", "images:photos")
    reason = commands.refusal(cli, "run", *words, "--dataset-name", "pets")
    assert "'images:pets' is images without labels" in reason
    reason = commands.refusal(cli, "run", *words, "--test-share", "20%")
    assert "has no labels, so none of it is for test" in reason
