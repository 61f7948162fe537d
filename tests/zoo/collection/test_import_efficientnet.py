"""EfficientNet-Lite0 under the names of its PyTorch port."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import commands
import pytest
import timm
import torch
from click.testing import CliRunner
from torch import Tensor

from zoo.commands.cli import cli
from zoo.encoder import load_encoder
from zoo.records import Card, read_record

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _names() -> list[str]:
    """As the port writes them, block by block; the first one does not expand."""
    names = ["_conv_stem.weight", *_norm("_bn0")]
    for block in range(16):
        layers = ("_depthwise_conv", "_bn1", "_project_conv", "_bn2")
        for layer in ("_expand_conv", "_bn0", *layers) if block else layers:
            at = f"_blocks.{block}.{layer}"
            names += _norm(at) if "_bn" in layer else [f"{at}.weight"]
    return [*names, "_conv_head.weight", *_norm("_bn1"), "_fc.weight", "_fc.bias"]


def _norm(at: str) -> list[str]:
    return [f"{at}.{name}" for name in NORM]


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    made: torch.nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=7)
    with torch.no_grad():
        made.train()(torch.rand(4, 3, 64, 64))
    return made.eval()


def _import(file: Path, to: Path, *more: str) -> list[str]:
    words = ("import", str(file), "--format", "efficientnet-lite0", "--name", "lite")
    return [*words, "--to", str(to), "--licence", "Apache-2.0", *more]


def test_the_port_is_the_network_of_timm(net: torch.nn.Module, tmp_path: Path) -> None:
    """The tensors of both come in the same order: an independent way to match them."""
    tensors: list[Tensor] = list(net.state_dict().values())
    torch.save(dict(zip(_names(), tensors, strict=True)), tmp_path / "net.pth")
    done = CliRunner().invoke(
        cli, _import(tmp_path / "net.pth", tmp_path / "zoo", "--size", "64")
    )
    assert done.exit_code == 0, done.exception
    encoder = load_encoder(tmp_path / "zoo" / "lite" / "model.safetensors")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        theirs = net.forward_head(  # type: ignore[operator]
            net.forward_features((x - 0.5) / 0.5),  # type: ignore[operator]
            pre_logits=True,
        )
        torch.testing.assert_close(encoder(x), theirs)
    card = read_record(tmp_path / "zoo" / "lite" / "card.json", Card)
    assert (card.licence, card.training.labels) == ("Apache-2.0", True)
    assert (card.arch, card.dim) == ("timm:tf_efficientnet_lite0", 1280)


def test_other_networks_are_refused(net: torch.nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    tensors = dict(zip(_names(), net.state_dict().values(), strict=True))
    torch.save({**tensors, "_blocks.16._bn0.bias": torch.zeros(1)}, file)
    words = _import(file, tmp_path / "zoo")
    assert "'_blocks.16._bn0.bias', which no" in commands.refusal(cli, *words)
    del tensors["_bn1.bias"]
    torch.save(tensors, file)
    assert "1 missing (bn2.bias)" in commands.refusal(cli, *words)
    assert not (tmp_path / "zoo").exists()
    words = ["import", str(file), "--format", "acl", "--name", "a", "--to", "zoo"]
    assert "--size is for" in commands.refusal(cli, *words, "--size", "64")


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def _put(key: str, value: object) -> Callable[[dict[str, object]], None]:
    return lambda state: state.update({key: value})


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (_put("_fc.note", _Code()), "pickled objects"),
        (_put("_blocks.\u0967._bn0.bias", torch.zeros(96)), "which no EfficientNet"),
        (_put("_blocks.01._bn0.bias", torch.zeros(96)), "which no EfficientNet"),
        (_put(f"_blocks.{'9' * 5000}._bn0.bias", torch.zeros(1)), "which no Effic"),
        (_put("_bn0.bias", torch.zeros(32, dtype=torch.complex64)), "torch.complex64"),
        (_put("_bn0.bias", torch.full((32,), 1e300, dtype=torch.float64)), "infinity"),
        (_put("_bn0.running_var", -torch.ones(32)), "are not finite"),
    ],
)
def test_a_file_that_means_harm(
    net: torch.nn.Module,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alter: Callable[[dict[str, object]], None],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    state = dict(zip(_names(), net.state_dict().values(), strict=True))
    alter(state)
    torch.save(state, "net.pth")
    words = _import(Path("net.pth"), tmp_path / "zoo", "--size", "64")
    assert reason in commands.refusal(cli, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]
