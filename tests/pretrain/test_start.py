"""Runs that start from an encoder that exists: what goes in, and what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import commands
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from pretrain.cli import assemble, command
from pretrain.finite import first_broken
from pretrain.progress import Lines
from pretrain.recipe import Recipe, merge, validate
from pretrain.session import Surroundings
from pretrain.start import check_trainable, find_start
from pretrain.train import train
from zoo import datasets
from zoo.collection.licences import forbids_sharing
from zoo.commands.cli import cli
from zoo.encoder import Encoder, EncoderSpec, load_encoder, save_encoder
from zoo.errors import UserError
from zoo.own_module import Backbone, OwnEncoder
from zoo.records import Card, read_record

FLAGS: dict[str, Any] = dict.fromkeys(
    ("method", "init", "normalize", "data", "arch", "norm", "eps", "epochs", "passes")
)
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": (
        "vit_tiny_patch16_224",
        {"img_size": 8, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
    ),
    "convnext": ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}),
    "efficientnet": ("test_efficientnet", {}),
}
"""As timm builds them, at a size that a test can train."""
SIDES = {"vit": 8, "convnext": 32, "efficientnet": 8}
RUN: dict[str, Any] = {
    "name": "tiny",
    "method": "fare",
    "data": "digits@3x8x8",
    "threat": {"norm": "Linf", "eps": 0.1},
    "attack": {"steps": 1},
    "batch": 16,
    "epochs": 2,
    "limit": 48,
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "monitor": {"every": 2, "limit": 8, "steps": 1},
    "checkpoint_minutes": 0,
}


def _run(kind: str, base: Path, **change: Any) -> dict[str, Any]:
    side = SIDES[kind]
    return {**RUN, "data": f"digits@3x{side}x{side}", "init": str(base), **change}


def _base(kind: str, folder: Path) -> Path:
    """A tiny timm network with random weights and statistics, as a file of robrep's."""
    name, options = TINY[kind]
    shape = (3, SIDES[kind], SIDES[kind])
    torch.manual_seed(0)
    spec = EncoderSpec(
        arch=f"timm:{name}", options=options, shape=shape, mean=(0.5,), std=(0.25,)
    )
    encoder = Encoder(spec)
    with torch.no_grad():
        encoder.train()(torch.rand(16, *shape))  # statistics of their own
    save_encoder(encoder.eval(), folder / "base.safetensors")
    return folder / "base.safetensors"


@pytest.mark.parametrize("kind", sorted(TINY))
def test_the_same_network_comes_out_and_timm_loads_it(
    kind: str, tmp_path: Path
) -> None:
    import timm

    base = _base(kind, tmp_path)
    recipe = validate(_run(kind, base, norms="frozen"))
    out = load_encoder(train(recipe, tmp_path / "run") / "model.safetensors")
    before = load_encoder(base)
    assert out.spec == before.spec
    x = torch.rand(4, *out.spec.shape)
    assert not torch.allclose(out(x), before(x), atol=1e-4)
    last, timms = str(tmp_path / "run" / "last"), tmp_path / "timm"
    done = CliRunner().invoke(cli, ["export", last, "--to", str(timms)])
    assert done.exit_code == 0, done.exception
    name, options = TINY[kind]
    model = timm.create_model(
        name,
        num_classes=0,
        checkpoint_path=str(timms / "model.safetensors"),
        **options,
    )
    with torch.no_grad():
        theirs = model.eval()((x - 0.5) / 0.25)
    torch.testing.assert_close(theirs, out(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("lr", "warned"), [(1e-9, False), (3.0, True)])
def test_an_encoder_that_ends_farther_than_it_began_is_warned_of(
    lr: float, warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a rate of nothing features stay; at an absurd one they are blown away."""
    optimizer = {"name": "adamw", "lr": lr, "weight_decay": 0}
    content = _run("vit", _base("vit", tmp_path), optimizer=optimizer)
    train(validate(content), tmp_path / "run", Surroundings(report=Lines()))
    said = capsys.readouterr().err
    first = float(said.split("attacked ")[1].split(",")[0])
    last = float(said.split("attacked ")[2].split(",")[0])
    assert (last > 1.01 * first) is warned
    assert ("ended farther from the original's" in said) is warned


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    base = _base("efficientnet", tmp_path)
    content = _run("efficientnet", base, method="lore", average=0.9, epochs=4)
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(content))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = commands.start(
        *("pretrain", str(file), "-q", "--output", str(cut)), OMP_NUM_THREADS="1"
    )
    commands.until((cut / "checkpoint.pt").exists, process)
    process.kill()
    process.communicate()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the process that was killed
    try:
        for folder in (whole, cut):
            train(validate(content), folder)
    finally:
        torch.set_num_threads(threads)
    ended = [load_encoder(run / "last" / "model.safetensors") for run in (whole, cut)]
    first, second = (encoder.state_dict() for encoder in ended)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_the_card_says_what_went_in(tmp_path: Path) -> None:
    base = _base("convnext", tmp_path)
    init = {"model": str(base), "licence": "cc-by-nc-nd-4.0", "extra_data": False}
    recipe = validate(_run("convnext", base, init=init, epochs=1))
    images = datasets.load(recipe.data, "train")
    start = find_start(recipe, images, torch.device("cpu"))
    assert start is not None
    assert any("forbids passing changed weights on" in note for note in start.notes)
    assert any("-o init.labels=false" in note for note in start.notes)
    last = train(recipe, tmp_path / "run")
    card = read_record(last / "card.json", Card)
    assert card.licence == "cc-by-nc-nd-4.0"
    assert card.arch == "timm:convnext_atto"
    assert (card.training.labels, card.training.extra_data) == (True, False)
    assert card.training.recipe["init"]["model"] == "base.safetensors"
    words = ("publish", str(last), "--to", str(tmp_path / "zoo"))
    assert "cc-by-nc-nd-4.0, forbids" in commands.refusal(cli, *words)
    assert not (tmp_path / "zoo").exists()


def test_a_run_that_is_not_watched_says_its_cost_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = {"data": "digits", "init": "zoo:simclr-digits", "monitor": {"every": 0}}
    recipe = validate({**RUN, **change, "epochs": 1})
    train(recipe, tmp_path / "run", Surroundings(report=Lines()))
    told = capsys.readouterr().err
    assert "a step takes" in told
    assert "held-out" not in told


def test_an_encoder_of_the_zoo_lends_its_card() -> None:
    recipe = validate({**RUN, "data": "digits", "init": "zoo:simclr-digits"})
    start = find_start(recipe, datasets.load("digits", "train"), torch.device("cpu"))
    assert start is not None
    assert (start.licence, start.labels, start.extra_data) == (
        *("Apache-2.0", False, False),
    )
    assert start.notes == ()


def test_a_student_of_another_architecture_follows(tmp_path: Path) -> None:
    change = {"arch": "resnet_s8", "arch_options": {"widths": [8], "blocks": [1]}}
    recipe = validate({**RUN, **change, "init": str(_base("vit", tmp_path))})
    last = train(recipe, tmp_path / "run")
    assert load_encoder(last / "model.safetensors").spec.arch == "resnet_s8"
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["held_out/drift"] > 0
    assert 0 <= line["held_out/quantile"] <= 1
    change |= {"method": "prototypes", "options": {"clusters": 2}}
    other = validate({**RUN, **change, "init": str(tmp_path / "base.safetensors")})
    with pytest.raises(UserError, match="8 features does not fit a teacher of 24"):
        train(other, tmp_path / "other")


def test_published_settings_are_the_default_of_the_command() -> None:
    def made(*overrides: str, **flags: Any) -> Recipe:
        given = {"method": "lore", "init": "zoo:a", "eps": "4/255", **flags}
        return assemble(None, FLAGS | given, overrides)

    recipe = made()
    assert (recipe.optimizer.name, recipe.optimizer.lr) == ("adamw", 1e-5)
    assert recipe.optimizer.weight_decay == 1e-4
    assert recipe.attack.steps == 10
    assert recipe.attack.step_size == pytest.approx(1 / 255)
    assert recipe.arch == "init"
    assert made("optimizer.lr=0.1", "attack.steps=3").attack.step_size is None
    assert made(arch="resnet18").arch == "resnet18"
    described = made("init.licence=mit", normalize="imagenet").init
    assert described is not None
    assert (described.model, described.licence) == ("zoo:a", "mit")
    assert described.normalize == "imagenet"


class _Net(nn.Module):
    """A layer whose forward pass can be spoilt."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), end)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class _Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """No gradient anywhere."""
        return x.round()


class _Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """No graph at all."""
        return x.detach()


class _Chance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Dropout that eval mode does not switch off."""
        return nn.functional.dropout(x, 0.5, training=True)


class _Holes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """0 / 0."""
        return x * 0 / 0


def _own(end: nn.Module) -> OwnEncoder:
    torch.manual_seed(0)
    spec = EncoderSpec(arch="module:_Net", shape=(3, 8, 8))
    made = OwnEncoder(nn.Module(), spec, 4)
    made.backbone = Backbone(_Net(end), 4)
    return made


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (_Rounded(), "cannot be differentiated"),
        (_Detached(), "cannot be differentiated"),
        (_Chance(), "chance in eval mode"),
        (_Holes(), r"NaN or infinite features, first in 'backbone.module.layers.2'"),
    ],
)
def test_encoders_that_cannot_be_made_robust(end: nn.Module, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_trainable(_own(end), torch.rand(4, 3, 8, 8), "it")


def test_features_of_length_one_have_a_gradient() -> None:
    class Normalised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.normalize(x, dim=1)

    check_trainable(_own(Normalised()), torch.rand(4, 3, 8, 8), "it")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threat": {"norm": "Linf", "eps": 8}}, "did you mean 8/255"),
        ({"attack": {"step_size": 1}}, "whole ball .* did you mean 1/255"),
        ({"attack": {"step_size": 0.9}}, r"whole ball .*; take [0-9.]+ at most"),
        ({"data": "digits@3x2x2"}, "resizes them"),
        ({"init": "zoo:nobody"}, "nobody"),
        ({"init": "nowhere.pt"}, "nowhere.pt"),
        ({"arch_options": {"depth": 3}}, "name it with --arch too"),
        ({"stable": {"keep": 1000}}, "keeps 1 to 24 features"),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    content = merge({**RUN, "init": str(_base("vit", tmp_path))}, change)
    with pytest.raises(UserError, match=words):
        train(validate(content), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_state_dict_needs_its_architecture_and_its_preprocessing(
    tmp_path: Path,
) -> None:
    name, options = TINY["convnext"]
    net = Encoder(
        EncoderSpec(arch=f"timm:{name}", options=options, shape=(3, 32, 32))
    ).backbone.model
    assert isinstance(net, nn.Module)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    words = ["--init", str(tmp_path / "net.pt"), "--method", "fare", "-q"]
    words += ["--data", "digits@3x32x32", "--eps", "0.1"]
    words += ["--output", str(tmp_path / "r")]
    assert "its architecture with --arch" in commands.refusal(command, *words)
    words += ["--arch", f"timm:{name}", "-o", "arch_options.depths=[1,1,1,1]"]
    words += ["-o", "arch_options.dims=[8,8,8,8]"]
    refused = commands.refusal(command, *words)
    assert "--normalize cifar10, imagenet, none or MEAN/STD" in refused
    words += ["--normalize", "imagenet", "-o", "limit=48", "-o", "batch=16"]
    words += ["--epochs", "1", "-o", "attack.steps=1"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.exception
    found = load_encoder(tmp_path / "r" / "last" / "model.safetensors")
    assert found.spec.mean == (0.485, 0.456, 0.406)


def test_pixels_of_another_scale_are_told_in_words_of_the_command(
    tmp_path: Path,
) -> None:
    name, _ = TINY["efficientnet"]
    net = Encoder(EncoderSpec(arch=f"timm:{name}", shape=(3, 8, 8))).backbone.model
    assert isinstance(net, nn.Module)
    first = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert first.running_var is not None
    first.running_var.fill_(1e6)  # as if trained on pixels of 0 to 255
    torch.save(net.state_dict(), tmp_path / "net.pt")
    init = {"model": str(tmp_path / "net.pt"), "arch": f"timm:{name}"}
    recipe = validate({**RUN, "init": {**init, "normalize": "imagenet"}})
    data = datasets.load(recipe.data, "train")
    start = find_start(recipe, data, torch.device("cpu"))
    assert start is not None
    told = next(note for note in start.notes if "batch norm" in note)
    assert told.endswith("; --normalize may not be the module's own.")


def test_half_precision_that_breaks_is_named() -> None:
    """3.4e38 is a number in fp32, and infinite in bf16."""
    encoder = _own(nn.Identity())
    (weight, _) = encoder.parameters()
    with torch.no_grad():
        weight[0] = 0
        weight[0, 0] = 3.4e38
    x = torch.zeros(2, 3, 8, 8)
    x[:, 0, 0, 0] = 0.5
    assert first_broken(encoder, x) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert first_broken(encoder, x) == "backbone.module.layers.1"


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("cc-by-nc-nd-4.0", True),
        ("CC BY-ND 4.0", True),
        ("All rights reserved", True),
        ("proprietary", True),
        ("apache-2.0", False),
        ("cc-by-nc-4.0", False),
        ("standard", False),
        ("unknown", False),
    ],
)
def test_licences_without_derivatives(name: str, forbidden: bool) -> None:
    assert forbids_sharing(name) is forbidden
