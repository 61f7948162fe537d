"""Encoders in the files of the library that their architecture is from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import commands
import hub_stub
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from zoo.collection.licences import licence_of
from zoo.collection.native import export
from zoo.collection.references import LoadOptions, load
from zoo.commands.cli import cli
from zoo.encoder import Encoder, EncoderSpec, save_encoder
from zoo.errors import UserError

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 0.2)
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
PATCHES = {"image_size": 16, "patch_size": 8}
VISION: dict[str, Any] = {"layers": 1, "width": 64, "head_width": 32, **PATCHES}
TEXT = {"context_length": 4, "vocab_size": 9, "width": 8, "heads": 1, "layers": 1}


def _encoder(arch: str, **options: Any) -> Encoder:
    torch.manual_seed(1)  # robrep compares with what seed 0 draws
    shape = (3, 16, 16)
    spec = EncoderSpec(arch=arch, options=options, shape=shape, mean=MEAN, std=STD)
    return Encoder(spec).eval()


def _normalised(x: Tensor) -> Tensor:
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_stub.Hub]:
    monkeypatch.delenv("ROBREP_ZOO", raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache")
    )
    with hub_stub.hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def _from_hub(running: hub_stub.Hub, folder: Path) -> Encoder:
    """What `--model` finds where the files were uploaded as they are."""
    running.commits["org/mine"] = [
        {path.name: path.read_bytes() for path in folder.iterdir()}
    ]
    options = LoadOptions(shape=(3, 16, 16), classes=10)
    found = load("hf://org/mine", options).encoder
    assert found is not None
    return found


@torch.no_grad()
def test_timm_loads_what_was_its_own(hub: hub_stub.Hub, tmp_path: Path) -> None:
    import timm

    sizes = {"patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
    ours = _encoder("timm:vit_tiny_patch16_224", img_size=16, **sizes)
    call = export(ours, tmp_path / "files")
    x = torch.rand(2, 3, 16, 16)
    model = eval(call, {"timm": timm})  # the printed call, as a user types it
    torch.testing.assert_close(model.eval()(_normalised(x)), ours(x))
    torch.testing.assert_close(_from_hub(hub, tmp_path / "files")(x), ours(x))


@torch.no_grad()
@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("transformers:dinov2", {**SIZES, **PATCHES}),
        ("transformers:convnext", {"depths": [1] * 4, "hidden_sizes": [8] * 4}),
    ],
)
def test_transformers_loads_what_was_its_own(
    hub: hub_stub.Hub, tmp_path: Path, arch: str, options: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    if "depths" in options:
        options = {**options, "resize": 64}
    ours = _encoder(arch, **options)
    call = export(ours, tmp_path / "files")
    assert eval(call, {"transformers": transformers}) is not None
    model = transformers.AutoModel.from_pretrained(tmp_path / "files")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "files")
    assert tuple(processor.image_mean) == MEAN
    x = torch.rand(2, 3, 16, 16)
    if "resize" not in options:
        theirs = model(pixel_values=_normalised(x)).pooler_output.flatten(1)
        torch.testing.assert_close(theirs, ours(x))
    torch.testing.assert_close(_from_hub(hub, tmp_path / "files")(x), ours(x))


@torch.no_grad()
def test_open_clip_loads_what_was_its_own(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    import safetensors.torch

    ours = _encoder("open_clip:image", embed_dim=12, **VISION)
    call = export(ours, tmp_path / "files")
    whole = open_clip.CLIP(12, VISION, TEXT)
    eval(call, {"model": whole, "safetensors": safetensors})
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(whole.eval().encode_image(_normalised(x)), ours(x))


def test_what_no_library_has_is_refused(tmp_path: Path) -> None:
    own = _encoder("resnet_s8", widths=[4], blocks=[1])
    with pytest.raises(UserError, match="of robrep's own"):
        export(own, tmp_path)
    net = {"depths": [1] * 4, "dims": [8] * 4, "resize": 32}
    ended = _encoder("timm:convnext_atto", **net, linear_end=2)
    with pytest.raises(UserError, match="linear layer of robrep's"):
        export(ended, tmp_path)
    plain = _encoder("timm:convnext_atto", **net)
    export(plain, tmp_path / "files")
    save_encoder(plain, tmp_path / "plain.safetensors")
    words = ("export", str(tmp_path / "plain.safetensors"), "--to")
    refused = commands.refusal(cli, *words, str(tmp_path / "files"))
    assert "exists already; choose another folder" in refused
    assert "nobody" in commands.refusal(cli, "export", "nobody", "--to", "x")


@torch.no_grad()
def test_export_prints_how_images_must_be_normalised(tmp_path: Path) -> None:
    import timm

    sizes = {"patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2}
    ours = _encoder("timm:vit_tiny_patch16_224", img_size=16, **sizes)
    save_encoder(ours, tmp_path / "ours.safetensors")
    words = ["export", str(tmp_path / "ours.safetensors"), "--to", str(tmp_path / "a")]
    text = CliRunner().invoke(cli, words, catch_exceptions=False).stdout
    told = re.fullmatch(
        r"timm\..*\n# images in \[0, 1\], 16 x 16, .*: mean (.*), std (.*)\n", text
    )
    assert told is not None, text
    mean, std = (
        torch.tensor(ast.literal_eval(numbers)).view(3, 1, 1)
        for numbers in told.groups()
    )
    model = eval(text, {"timm": timm})  # both lines as they are: a call and a comment
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(model.eval()((x - mean) / std), ours(x))


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("---\nlicense: mit\n---\n# A\n", "mit"),
        ("---\nlicense: other\nlicense_name: my-own\n---\n", "my-own"),
        ("---\nlicense: [1]\n---\n", None),
        ("---\n: : :\n---\n", None),
        ("no front matter", None),
        (None, None),
    ],
)
def test_the_licence_of_a_repository(
    hub: hub_stub.Hub, head: str | None, licence: str | None
) -> None:
    files = {} if head is None else {"README.md": head.encode()}
    hub.commits["org/mine"] = [{"config.json": b"{}", **files}]
    assert licence_of("hf://org/mine") == licence


def test_the_licence_of_other_references(tmp_path: Path) -> None:
    assert licence_of("zoo:simclr-digits") == "Apache-2.0"
    assert licence_of("timm:convnext_atto.d2_in1k") is None
    assert licence_of("timm:vit_small_patch14_dinov2.lvd142m") == "apache-2.0"
    assert licence_of("robustbench:Carmon2019Unlabeled") is None
    assert licence_of(str(tmp_path / "net.pt")) is None


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    """transformers' own writer removes what looks like an older model's parts."""
    pytest.importorskip("transformers")
    ours = _encoder("transformers:dinov2", **SIZES, **PATCHES)
    mine = tmp_path / "model-00001-of-00002.safetensors"
    mine.write_text("mine")
    export(ours, tmp_path)
    assert mine.read_text() == "mine"
    assert not list(tmp_path.glob(".export-*"))
    (tmp_path / "two").mkdir()
    settings = tmp_path / "two" / "preprocessor_config.json"
    settings.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        export(ours, settings.parent)
    assert [path.name for path in settings.parent.iterdir()] == [settings.name]
    assert settings.read_text() == "mine"
