"""Pretrained models of other libraries, through those and the hub's own client.

The hub runs on this machine; models are tiny, with random weights.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hub_stub
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from zoo import datasets
from zoo.classifier_file import load_classifier
from zoo.collection.references import LoadOptions, load
from zoo.encoder import Encoder, load_encoder, save_encoder
from zoo.errors import RobrepError, UserError
from zoo.result_file import read_result

pytestmark = pytest.mark.slow


NAME = "test_efficientnet.r160_in1k"
PHOTO = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROBREP_ZOO", raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache")
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_stub.Hub]:
    with hub_stub.hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def photos(side: int = 32) -> LoadOptions:
    return LoadOptions(shape=(3, side, side), classes=10)


def encoder(reference: str, options: LoadOptions) -> Encoder:
    found = load(reference, options).encoder
    assert found is not None
    assert not found.training
    return found


def timm_model(name: str = NAME, **options: Any) -> nn.Module:
    torch.manual_seed(1)
    made: nn.Module = timm.create_model(name, **options).eval()
    return made


def official(hub: hub_stub.Hub, model: nn.Module, name: str = NAME) -> None:
    """As timm's own organisation holds it: weights with their head."""
    hub.commits[f"timm/{name}"] = [{"model.safetensors": save(model.state_dict())}]


def test_timm_weights_come_through_the_hub(hub: hub_stub.Hub) -> None:
    theirs = timm_model()
    official(hub, theirs)
    found = encoder(f"timm:{NAME}", photos(160))
    config: Any = theirs.pretrained_cfg
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    x = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        features = theirs.forward_features((x - mean) / std)  # type: ignore[operator]
        wanted = theirs.forward_head(features, pre_logits=True)  # type: ignore[operator]
        torch.testing.assert_close(found(x), wanted)
    assert found.spec.options == {}
    small = encoder(f"timm:{NAME}", photos())
    assert small.spec.options == {"resize": 160, "resample": "bicubic"}
    assert small(PHOTO).shape == (2, small.dim)


def test_what_was_fetched_once_needs_no_network(
    hub: hub_stub.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    official(hub, timm_model())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RobrepError, match=r"offline mode is on.*--arch timm:test_e"):
        load(f"timm:{NAME}", photos())
    monkeypatch.delenv("HF_HUB_OFFLINE")
    first = encoder(f"timm:{NAME}", photos())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert torch.equal(encoder(f"timm:{NAME}", photos())(PHOTO), first(PHOTO))
    monkeypatch.delenv("HF_HUB_OFFLINE")  # on, with a hub that does not answer
    assert torch.equal(encoder(f"timm:{NAME}", photos())(PHOTO), first(PHOTO))


SCRIPT = f"""
import zoo
from zoo.collection.references import LoadOptions, load
try:
    print(load("timm:{NAME}", LoadOptions(shape=(3, 32, 32), classes=10)).encoder.dim)
except zoo.RobrepError as error:
    print(error)
"""


def test_a_fresh_process_reads_the_hubs_variables(
    hub: hub_stub.Hub, tmp_path: Path
) -> None:
    """Without network, with it, and without, from the cache."""
    model = timm_model()
    official(hub, model)
    told = []
    for offline in ("1", "0", "1"):
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        env["HF_HUB_OFFLINE"] = offline
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert "offline mode is on" in told[0]
    assert told[1] == told[2] == "256\n"


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("timm:resnet_18", "timm has no pretrained weights 'resnet_18'"),
        ("timm:resnet18.nobody", "did you mean 'resnet18"),
        ("timm:vit_small_patch16_dinov33", rf"timm {timm.__version__}; a newer one"),
        (f"timm:{NAME}", "not there, or not public"),
        ("hf://org/none", "not there, or not public"),
        ("timm:org/model", "is no name of a timm model"),
    ],
)
def test_what_is_not_there_is_told(
    hub: hub_stub.Hub, reference: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        load(reference, photos())


def timm_files(model: nn.Module, **config: Any) -> dict[str, bytes]:
    """As timm's `push_to_hf_hub` writes them."""
    described = {
        "architecture": "test_vit",
        "num_classes": 7,
        "model_args": {"img_size": 32},
        "pretrained_cfg": {
            "mean": [0.5, 0.4, 0.3],
            "std": [0.5, 0.25, 0.25],
            "input_size": [3, 32, 32],
            "interpolation": "bicubic",
        },
        **config,
    }
    return {
        "config.json": json.dumps(described).encode(),
        "model.safetensors": save(model.state_dict()),
    }


def test_a_timm_model_of_anybody(hub: hub_stub.Hub, tmp_path: Path) -> None:
    theirs = timm_model("test_vit", num_classes=7, img_size=32)
    hub.commits["org/mine"] = [timm_files(theirs)]
    found = encoder("hf://org/mine", photos())
    mean, std = found.mean, found.std
    assert mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    with torch.no_grad():
        x = (PHOTO - mean) / std
        wanted = theirs.forward_head(  # type: ignore[operator]
            theirs.forward_features(x),  # type: ignore[operator]
            pre_logits=True,
        )
        torch.testing.assert_close(found(PHOTO), wanted)
    save_encoder(found, tmp_path / "e.safetensors")
    assert torch.equal(load_encoder(tmp_path / "e.safetensors")(PHOTO), found(PHOTO))
    assert encoder("hf-hub:org/mine", photos(48)).spec.options["resize"] == 32


def _without_a_weight(files: dict[str, bytes]) -> None:
    state = timm_model("test_vit", num_classes=7, img_size=32).state_dict()
    del state["blocks.0.attn.qkv.weight"]
    files["model.safetensors"] = save(state)


def _another(files: dict[str, bytes]) -> None:
    files["model.safetensors"] = save({"other.weight": torch.rand(9)})


def _pickled(files: dict[str, bytes]) -> None:
    files["pytorch_model.bin"] = files.pop("model.safetensors")


def _with(**config: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        described = json.loads(files["config.json"])
        files["config.json"] = json.dumps({**described, **config}).encode()

    return change


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without_a_weight, r"lacks 1 weights \(blocks.0.attn.qkv.weight"),
        (_another, "lacks"),
        (_pickled, "no model.safetensors; robrep reads safetensors files alone"),
        (_with(model_args={"checkpoint_path": "/etc/passwd"}), "no option of timm"),
        (_with(model_args={"pretrained_cfg": {"url": "x"}}), "no option of timm"),
        (_with(architecture="hf-hub:org/other"), "is no name of a timm model"),
        (_with(architecture="local-dir:/tmp"), "is no name of a timm model"),
        (_with(pretrained_cfg={}), "broken description"),
        (_with(model_args={"embed_dim": 60000}), "more weights than the file"),
    ],
)
def test_a_repository_that_does_not_hold_what_it_says(
    hub: hub_stub.Hub, spoil: Callable[[dict[str, bytes]], None], says: str
) -> None:
    files = timm_files(timm_model("test_vit", num_classes=7, img_size=32))
    spoil(files)
    hub.commits["org/mine"] = [files]
    with pytest.raises(UserError, match=says):
        load("hf://org/mine", photos())


def test_the_command_measures_a_model_of_timm(
    hub: hub_stub.Hub, tmp_path: Path
) -> None:
    """As typed, in a process of its own, to a result; and it is timm's model."""
    name = "test_vit.r160_in1k"
    theirs = timm_model(name)
    official(hub, theirs, name)
    noise = np.random.default_rng(0)
    for split, label in itertools.product(("train", "test"), range(2)):
        folder = tmp_path / "photos" / split / f"class-{label}"
        folder.mkdir(parents=True)
        for i in range(4 if split == "train" else 1):
            pixels = noise.integers(0, 128, (40, 32, 3)) + 100 * label
            Image.fromarray(pixels.astype("uint8")).save(folder / f"{i}.png")
    words = ["--model", f"timm:{name}", "--attacks", "fgsm", "--eps", "1/255"]
    words += ["--dataset", "imagefolder:photos@3x32x32", "--health", "none"]
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-m", "robrep_eval", *words, "--output", "run"],
        capture_output=True,
        text=True,
        env={**env, "HF_HUB_OFFLINE": "0"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "robust (fgsm)" in done.stdout
    result = read_result(tmp_path / "run")
    assert (result.dataset.n, result.probe and result.probe.train_n) == (2, 8)
    x = datasets.load(f"imagefolder:{tmp_path}/photos@3x32x32", "test").images([0, 1])
    x = nn.functional.interpolate(x, (160, 160), mode="bicubic", antialias=True)
    config: Any = theirs.pretrained_cfg
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    held = load_classifier(tmp_path / "run" / "classifier.safetensors")
    with torch.no_grad():
        features = theirs.forward_features((x - mean) / std)  # type: ignore[operator]
        z = theirs.forward_head(features, pre_logits=True)  # type: ignore[operator]
        torch.testing.assert_close(held.features(x), z)
