"""--probe, --labels, several datasets and --transfer-from, as people type them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from zoo.datasets.base import Dataset
from zoo.encoder import Encoder, EncoderSpec, save_encoder


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one with fresh weights: what it can do is not the question here."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    options = {"widths": [4, 8], "blocks": [1, 1]}
    torch.manual_seed(0)
    save_encoder(
        Encoder(EncoderSpec(arch="resnet_s8", options=options, shape=(1, 8, 8))), path
    )
    return path


@pytest.fixture(scope="module")
def own_images(
    digits_train: Dataset,
    digits_test: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A dataset of one's own with two classes: digits below five, and the others."""
    root = tmp_path_factory.mktemp("own") / "sides"
    for data, count in ((digits_train, 60), (digits_test, 20)):
        pixels = (data.images(slice(count)) * 255).round().byte()
        for at, label in enumerate(data.labels[:count].tolist()):
            folder = root / data.split / ("low" if label < 5 else "high")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[at, 0].numpy()).save(folder / f"{at:03d}.png")
    return root


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "robrep_eval", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_several_datasets_make_one_table_and_resume(
    encoder_file: Path, own_images: Path, tmp_path: Path
) -> None:
    words = ["--model", str(encoder_file), "--eps", "0.1", "--limit", "10"]
    words += ["--dataset", f"digits,imagefolder:{own_images}", "--health", "none"]
    words += ["--attacks", "fgsm", "--output", "out", "--labels", "40"]
    first = call(tmp_path, *words, "--json")
    assert first.returncode == 0, first.stderr
    table = json.loads(first.stdout)
    assert table == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["dataset"] for row in table["rows"]] == [
        "digits",
        "imagefolder:sides",
    ]
    for row in table["rows"]:
        path = tmp_path / "out" / row["folder"] / "result.json"
        result = json.loads(path.read_text())
        assert result["dataset"]["name"] == row["dataset"]
        assert (result["clean"], result["robust"]) == (row["clean"], row["robust"])
        assert result["probe"]["labels"] == "40"
        assert row["train_n"] == 40
    written = [p.stat().st_mtime_ns for p in tmp_path.glob("out/*/result.json")]
    again = call(tmp_path, *words)
    assert again.returncode == 0
    assert again.stderr.count("nothing left to do") == 2
    assert "digits" in again.stdout
    assert "imagefolder" in (tmp_path / "out" / "summary.md").read_text()
    assert written == [p.stat().st_mtime_ns for p in tmp_path.glob("out/*/result.json")]


@pytest.mark.slow
def test_a_probe_by_name_is_another_run(encoder_file: Path, tmp_path: Path) -> None:
    words = ["--model", str(encoder_file), "--dataset", "digits", "--eps", "0.1"]
    words += ["--limit", "10", "--health", "none", "--attacks", "none"]
    words += ["--output", "out", "--labels", "2%"]
    first = call(tmp_path, *words, "--probe", "ALF")
    assert first.returncode == 0, first.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["probe"]["protocol"] == "ALF"
    assert result["probe"]["train_n"] == 29
    assert "ALF on 29 images of digits/train (2% labels)" in first.stdout
    other = call(tmp_path, *words)
    assert other.returncode == 2
    assert "holds another evaluation (probe.protocol: ALF there, SLF now)" in " ".join(
        other.stderr.split()
    )


BAD = [
    ("--probe alff", "did you mean 'ALF'"),
    ("--labels ten", "neither a share such as 10% nor a number"),
    ("--labels 5000", "has 1437 images"),
    ("--dataset digits,digits", "'digits' is named twice"),
    ("--dataset digits,", "has an empty part"),
    ("--dataset digits,digitz", "did you mean 'digits'"),
    ("--transfer-from simclr-digits", "write --transfer-from zoo:NAME"),
    ("--l2 -1", "the probe's penalty (--l2) must be zero or more, not -1"),
    ("--l2 nan", "is not a number such as"),
    ("--certify smoothing --sigma 0", "(--sigma) must be positive, not 0"),
    ("--certify smoothing --samples 0", "at least one sample (--samples)"),
    ("--certify lipschitz", "no Lipschitz constant is known for resnet_s8"),
    ("--battery full --attacks pgd", "attack 'pgd' is named twice"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[w for w, _ in BAD])
def test_bad_values_get_one_clear_error(
    words: str, message: str, encoder_file: Path, tmp_path: Path
) -> None:
    more = ["--eps", "0.1", "--output", "out", *words.split()]
    more += ["--dataset", "digits"] * ("--dataset" not in words)
    found = call(tmp_path, "--model", str(encoder_file), *more)
    assert found.returncode == 2
    assert message in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr
    assert found.stdout == ""
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.slow
def test_transfer_from_the_zoo_stands_beside_the_others(
    encoder_file: Path, tmp_path: Path
) -> None:
    words = ["--model", str(encoder_file), "--dataset", "digits", "--eps", "0.1"]
    words += ["--limit", "20", "--health", "none", "--attacks", "fgsm", "--json"]
    words += ["--transfer-from", "zoo:simclr-digits", "--output", "out"]
    found = call(tmp_path, *words)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    fgsm, transfer = result["attacks"]
    assert transfer["name"] == "transfer:zoo:simclr-digits"
    assert transfer["attempted"] == fgsm["attempted"] == result["clean"]["k"]
    assert (tmp_path / "out" / "surrogate-zoo-simclr-digits.safetensors").is_file()
    checked = call(tmp_path, "verify", "out")
    assert checked.returncode == 0, checked.stderr
