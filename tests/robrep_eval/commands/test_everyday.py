"""Thirty lines that people type on their first days, and what each must say.

Most run in this process through the commands' own entry points; where the interpreter's
start matters (`python -m`), in one of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import commands
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pretrain.cli import main as pretrain_main
from robrep_eval.commands.cli import main as eval_main
from zoo.commands.cli import main as zoo_main
from zoo.encoder import Encoder, EncoderSpec, save_encoder

pytestmark = pytest.mark.slow


ENTRY: dict[str, Callable[[], object]] = {
    "robrep-eval": eval_main,
    "robrep-zoo": zoo_main,
    "robrep-pretrain": pretrain_main,
}
QUICK = "--health none --limit 8 --labels 20 -q"
FEW = f"{QUICK} --attacks fgsm"
PLAIN = f"robrep-eval --model own.safetensors {QUICK}"
OWN = f"--model own.safetensors --eps 0.02 {FEW}"
RADIUS = "--eps 0.05 --attacks fgsm"
LINES = [
    # what is typed, exit code, what is said on stdout or stderr
    (f"robrep-eval --model zoo:tarrl-digits {FEW}", 0, "clean"),
    (f"robrep-eval --model zoo:tarrl-digits {FEW} --json", 0, '"attacks"'),
    ("robrep-eval --model zoo:tarl-digits", 2, "did you mean 'tarrl-digits'"),
    ("robrep-eval --model nothing.pt --dataset digits", 2, "no file nothing.pt"),
    (f"robrep-eval {OWN} --dataset digits", 0, "robust"),
    (f"robrep-eval {OWN} --dataset digits --norm L2", 0, "L2"),
    (f"robrep-eval {OWN} --dataset digits --norm L3", 2, "L3"),
    (f"robrep-eval {OWN} --dataset digit", 2, "digits"),
    (f"{PLAIN} --eps 0.02 --dataset digits --attacks none", 0, "no attack was run"),
    (f"{PLAIN} --eps 0.02 --dataset digits --attacks fgms", 2, "fgsm"),
    (f"robrep-eval {OWN} --dataset digits --epz 0.1", 2, "--eps"),
    (f"{PLAIN} --attacks fgsm --dataset digits --eps 0.01,0.02", 0, "2 evaluations"),
    (
        f"{PLAIN} --attacks none --dataset digits --eps 0.01,0.02 --output two",
        0,
        "summary saved in two/summary.json",
    ),
    (f"{PLAIN} --eps 0.02 --dataset digits --output one --json", 0, "saved in one"),
    (f"robrep-eval {OWN} --dataset digits --seed 1.5", 2, "whole number"),
    (f"robrep-eval {OWN} --dataset imagefolder:photos", 0, "robust"),
    (f"robrep-eval {OWN} --dataset imagefolder:photos@1x8x8", 0, "robust"),
    (f"robrep-eval {OWN} --dataset imagefolder:none", 2, "none"),
    (f"robrep-eval {OWN} --dataset imagefolder:loose --test-share 40%", 0, "robust"),
    (f"robrep-eval {OWN} --dataset imagelist:list.csv --test-share 40%", 0, "robust"),
    (f"robrep-eval {OWN} --dataset digits --output run --report", 0, "robust"),
    ("robrep-zoo verify nothing", 2, "no encoder 'nothing'"),
    ("robrep-zoo verify run", 2, "robrep-eval verify run checks it"),
    ("robrep-zoo show run", 2, "robrep-eval verify run checks it"),
    ("robrep-eval verify run", 0, "ok  "),
    ("robrep-eval report run", 0, "report.html"),
    (f"robrep-eval --config eval.yaml {FEW}", 0, "robust"),
    (f"robrep-eval --model wrapped.pt --arch resnet_s8 {FEW}", 2, "dataset"),
    (
        f"{PLAIN} --model b.safetensors --dataset digits --eps 0.05 --attacks fgsm",
        0,
        "2 eval",
    ),
    ("robrep-eval list", 0, "apgd-ce"),
    ("robrep-eval --help", 0, "--model"),
    ("robrep-zoo list", 0, "tarrl-digits"),
    ("robrep-zoo show tarrl-digits", 0, "tarrl-digits"),
    ("robrep-pretrain --help", 0, "--data"),
    ("robrep-pretrain --dataset digits", 2, "--data"),
]
MODULES = [
    ("robrep_eval --model zoo:tarl-digits", 2, "did you mean 'tarrl-digits'"),
    ("zoo --help", 0, "verify"),
    ("pretrain --help", 0, "--dataset"),
]


def photos(root: Path, *splits: str) -> list[Path]:
    noise = np.random.default_rng(0)
    paths = []
    for split in splits or (".",):
        for name, level in (("cat", 60), ("dog", 180)):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(20):
                pixels = noise.normal(level, 10, (8, 8)).clip(0, 255).astype("uint8")
                paths.append(root / split / name / f"{i}.png")
                Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what somebody has: a checkpoint, photographs, a list."""
    root = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    options = {"widths": [4, 8], "blocks": [1, 1]}
    encoder = Encoder(EncoderSpec(arch="resnet_s8", options=options, shape=(1, 8, 8)))
    save_encoder(encoder, root / "own.safetensors")
    save_encoder(encoder, root / "b.safetensors")
    torch.save(nn.Linear(2, 2).state_dict(), root / "wrapped.pt")
    photos(root / "photos", "train", "test")
    loose = photos(root / "loose")
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in loose]
    text = "\n".join(["path,label", *rows])
    (root / "list.csv").write_text(text + "\n")
    (root / "eval.yaml").write_text(
        "model: own.safetensors\ndataset: digits\neps: 0.02\n"
    )
    return root


@pytest.mark.parametrize(("line", "code", "said"), LINES)
def test_a_line(
    line: str,
    code: int,
    said: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    words = line.split()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        ENTRY[words[0]]()
    out, err = capsys.readouterr()
    assert stopped.value.code == code, out + err
    assert said in out + err
    assert "Traceback" not in err
    if code:
        (last,) = [x for x in err.splitlines() if x.startswith("Error: ")]
        assert out == ""
        assert said in last


@pytest.mark.parametrize(("line", "code", "said"), MODULES)
def test_a_line_by_python(line: str, code: int, said: str) -> None:
    found, out, err = commands.run(*line.split())
    assert (found, said in out + err) == (code, True), out + err
