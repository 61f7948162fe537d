"""Checkpoints as people have them: names under prefixes, heads, several networks."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from zoo.classifier import Classifier
from zoo.collection.references import Loaded, LoadOptions, load
from zoo.encoder import Encoder, EncoderSpec, save_encoder
from zoo.errors import UserError

X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
PHOTO = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(EncoderSpec(arch="resnet_s8", shape=(1, 8, 8))).eval()


def state(seed: int = 0, prefix: str = "") -> dict[str, Tensor]:
    found = small(seed).backbone.state_dict()
    return {prefix + key: value.clone() for key, value in found.items()}


def read(path: Path, content: object, **options: Any) -> Loaded:
    """As a user has it on disk, by the architecture's name."""
    torch.save(content, path / "c.pt")
    digits = {"shape": (1, 8, 8), "classes": 10, "arch": "resnet_s8"}
    return load(str(path / "c.pt"), LoadOptions(**{**digits, **options}))


def same(found: Loaded, seed: int = 0) -> bool:
    assert found.encoder is not None
    return torch.equal(found.encoder(X), small(seed)(X))


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "model.", "net.", "encoder.", "encoder_q.", "backbone."),
        *("_orig_mod.", "module.encoder_q.", "model._orig_mod.backbone."),
        *("_orig_mod.module.net.encoder.", "mine.of.course."),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_prefixes_are_found_and_said(
    tmp_path: Path, prefix: str, wrapped: bool
) -> None:
    content: Any = state(prefix=prefix)
    found = read(tmp_path, {"state_dict": content, "epoch": 3} if wrapped else content)
    assert same(found)
    assert f"under '{prefix}' are used" in found.notes[0]


def test_names_that_are_right_need_no_word(tmp_path: Path) -> None:
    found = read(tmp_path, state())
    assert same(found)
    assert found.notes == ()


def test_of_several_networks_the_one_that_is_trained_is_taken(tmp_path: Path) -> None:
    """As MoCo and its heirs save them, with a projector and a queue."""
    extra = {"queue": torch.zeros(4, 9), "encoder_q.fc.0.weight": torch.zeros(64, 64)}
    extra |= {"encoder_k.fc.0.weight": torch.zeros(64, 64)}
    both = state(0, "encoder_q.") | state(1, "encoder_k.") | extra
    found = read(tmp_path, both)
    assert same(found, 0)
    count = len(state()) + len(extra)
    assert f"; {count} other tensors are left out (queue, encoder_k" in found.notes[0]
    assert same(read(tmp_path, both, prefix="encoder_k"), 1)


def test_networks_that_fit_equally_well_must_be_chosen(tmp_path: Path) -> None:
    both = {"student": state(0), "teacher": state(1)}
    with pytest.raises(UserError, match=r"student\., teacher\.; choose with --prefix"):
        read(tmp_path, both)
    assert same(read(tmp_path, both, prefix="teacher."), 1)
    with pytest.raises(UserError, match=r"did you mean 'teacher\.'"):
        read(tmp_path, both, prefix="techer")


def test_a_stranger_among_the_weights_is_refused(tmp_path: Path) -> None:
    for prefix in ("", "module."):
        content = state(prefix=prefix) | {f"{prefix}extra.weight": torch.zeros(1)}
        with pytest.raises(UserError, match=r"1 unexpected \(\S*extra.weight\)"):
            read(tmp_path, content)
        del content[f"{prefix}extra.weight"], content[f"{prefix}bn1.weight"]
        with pytest.raises(UserError, match=r"1 missing \(bn1.weight\)"):
            read(tmp_path, content)


@pytest.mark.parametrize("name", ["linear", "fc", "head", "model.fc", "classifier"])
def test_classifiers_keep_their_head(tmp_path: Path, name: str) -> None:
    outer, _, _ = name.rpartition(".")
    prefix = f"{outer}." if outer else ""
    head = nn.Linear(64, 10)
    content = state(prefix=prefix)
    content |= {f"{name}.weight": head.weight.data, f"{name}.bias": head.bias.data}
    found = read(tmp_path, content).classifier
    assert isinstance(found, Classifier)
    torch.testing.assert_close(found(X), head(small()(X)))
    assert same(read(tmp_path, content, kind="features"))
    other = read(tmp_path, content, classes=3)
    assert same(other)
    assert "(10, 64), not (3, 64)" in other.notes[-1]
    with pytest.raises(UserError, match="no head for 3 classes"):
        read(tmp_path, content, classes=3, kind="logits")


def test_a_head_beside_the_backbone(tmp_path: Path) -> None:
    """As frameworks save them: model.backbone.* and model.fc.*."""
    head = nn.Linear(64, 10)
    content = state(prefix="model.backbone.")
    content |= {f"model.fc.{k}": v for k, v in head.state_dict().items()}
    found = read(tmp_path, content).classifier
    assert isinstance(found, Classifier)
    torch.testing.assert_close(found(X), head(small()(X)))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.model.", "backbone.model."])
@pytest.mark.parametrize("classes", [0, 7])
def test_a_checkpoint_of_a_timm_model(
    tmp_path: Path, suffix: str, prefix: str, classes: int
) -> None:
    """What robrep advises where there is no network; its head is for other classes."""
    from safetensors.torch import save_file

    theirs = timm.create_model("resnet18", num_classes=classes).eval()
    path = tmp_path / f"r18{suffix}"
    write = torch.save if suffix == ".pt" else save_file
    write({prefix + k: v for k, v in theirs.state_dict().items()}, path)
    options = LoadOptions(shape=(3, 32, 32), classes=10, arch="timm:resnet18")
    found = load(str(path), options)
    assert found.encoder is not None
    with torch.no_grad():
        wanted = theirs.forward_head(theirs.forward_features(PHOTO), pre_logits=True)
        torch.testing.assert_close(found.encoder(PHOTO), wanted)
    fits = LoadOptions(shape=(3, 32, 32), classes=7, arch="timm:resnet18")
    if classes:
        made = load(str(path), fits).classifier
        assert made is not None
        with torch.no_grad():
            torch.testing.assert_close(made(PHOTO), theirs(PHOTO))


@pytest.mark.parametrize(
    "name", ["convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050"]
)
def test_heads_of_timm_models_are_known(tmp_path: Path, name: str) -> None:
    theirs = timm.create_model(name, num_classes=10).eval()
    torch.save(theirs.state_dict(), tmp_path / "t.pt")
    options = LoadOptions(
        shape=(3, 32, 32),
        classes=10,
        arch=f"timm:{name}",
        arch_options=(("resize", 224),),
    )
    found = load(str(tmp_path / "t.pt"), options)
    assert found.classifier is not None
    big = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(found.classifier(big), theirs(big))


def test_torchvisions_shortcut_names_are_understood(tmp_path: Path) -> None:
    theirs = resnet18(num_classes=10).eval()
    options: dict[str, Any] = {"shape": (3, 32, 32), "arch": "resnet18"}
    options |= {"arch_options": (("stem", "imagenet"),)}
    found = read(tmp_path, theirs.state_dict(), **options).classifier
    assert found is not None
    with torch.no_grad():
        torch.testing.assert_close(found(PHOTO), theirs(PHOTO))


def test_a_state_of_our_own_is_read_by_its_architecture(tmp_path: Path) -> None:
    spec = EncoderSpec(arch="timm:lcnet_035", shape=(3, 32, 32))
    encoder = Encoder(spec).eval()
    save_encoder(encoder, tmp_path / "e.safetensors")
    options = LoadOptions(shape=(3, 32, 32), classes=10, arch="timm:lcnet_035")
    found = load(str(tmp_path / "e.safetensors"), options).encoder
    assert found is not None
    assert torch.equal(found(PHOTO), encoder(PHOTO))


@pytest.mark.parametrize("old", [False, True])
def test_arguments_in_a_file_get_a_command_that_takes_them_out(
    tmp_path: Path, old: bool
) -> None:
    content = {"state_dict": state(), "args": argparse.Namespace(lr=0.1)}
    path = tmp_path / "c.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    options = LoadOptions(shape=(1, 8, 8), classes=10, arch="resnet_s8")
    with pytest.raises(UserError, match=r"argparse\.Namespace") as refused:
        load(str(path), options)
    command = re.search(r'python -c "(.*)"$', str(refused.value))
    assert command is not None
    subprocess.run([sys.executable, "-c", command[1]], cwd=tmp_path, check=True)
    assert same(load(str(tmp_path / "weights.pt"), options))
