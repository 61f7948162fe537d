"""Checkpoints in the authors' formats, made here with their names and shapes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo_collection import card_of, tiny_encoder

from zoo.collection.importers import FORMATS, import_checkpoint
from zoo.collection.model_card import front_matter
from zoo.collection.sources_embedded import EMBEDDED_FOLDER
from zoo.collection.store import load_encoder_by_name
from zoo.errors import UserError
from zoo.records import Card, read_record

pytestmark = pytest.mark.slow


Sets = int | None


class Norm(nn.Module):
    """Several batch norms of which a call names one, as ACL and its heirs have."""

    def __init__(self, width: int, sets: int) -> None:
        super().__init__()
        self.bn_list = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(sets))

    def forward(self, x: Tensor, at: int) -> Tensor:
        return self.bn_list[at](x)  # type: ignore[no-any-return]


class Single(nn.BatchNorm2d):
    """One batch norm with the same call."""

    def forward(self, x: Tensor, at: int = 0) -> Tensor:
        return super().forward(x)


def norm(width: int, sets: Sets) -> nn.Module:
    return Single(width) if sets is None else Norm(width, sets)


class Shortcut(nn.Module):
    """1x1 convolution and batch norm under the names `conv` and `bn`."""

    def __init__(self, c_in: int, c_out: int, sets: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, stride=2, bias=False)
        self.bn = norm(c_out, sets)

    def forward(self, x: Tensor, at: int) -> Tensor:
        return self.bn(self.conv(x), at)  # type: ignore[no-any-return]


class Plain(nn.Sequential):
    """The same as a sequence, under the names `0` and `1`."""

    def __init__(self, c_in: int, c_out: int) -> None:
        conv = nn.Conv2d(c_in, c_out, 1, stride=2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor, at: int = 0) -> Tensor:
        return self[1](self[0](x))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, sets: Sets, skip: str) -> None:
        super().__init__()
        stride = 2 if c_in != c_out else 1
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm(c_out, sets)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = norm(c_out, sets)
        self.skip = skip if c_in != c_out else None
        if self.skip:
            how = Plain(c_in, c_out) if sets is None else Shortcut(c_in, c_out, sets)
            setattr(self, skip, how)

    def forward(self, x: Tensor, at: int) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x), at))
        out = self.bn2(self.conv2(out), at)
        return F.relu(out + (getattr(self, self.skip)(x, at) if self.skip else x))


class Authors(nn.Module):
    """A ResNet-18 as the authors write it.

    Args:
        sets: Number of batch-norm sets; None for plain batch norm.
        skip: Name of the shortcuts.
        padding: Of the stem.
        mean_std: Normalisation kept inside, under `normalize`.
        heads: Names and modules that are no part of the encoder.
    """

    def __init__(
        self,
        sets: Sets,
        skip: str,
        padding: int = 1,
        mean_std: tuple[float, float] | None = None,
        heads: dict[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=padding, bias=False)
        self.bn1 = norm(64, sets)
        widths = [64, 64, 128, 256, 512]
        for at in range(4):
            first = Block(widths[at], widths[at + 1], sets, skip)
            second = Block(widths[at + 1], widths[at + 1], sets, skip)
            stage = nn.Sequential(first, second)
            setattr(self, f"layer{at + 1}", stage)
        if mean_std:
            self.normalize = nn.Module()
            for name, value in zip(("mean", "std"), mean_std, strict=True):
                self.normalize.register_buffer(name, torch.full((3,), value))
        for name, head in (heads or {}).items():
            setattr(self, name, head)

    def forward(self, x: Tensor, at: int) -> Tensor:
        if hasattr(self, "normalize"):
            mean, std = self.normalize.buffers()
            x = (x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        x = F.relu(self.bn1(self.conv1(x), at))
        for number in range(1, 5):
            for block in getattr(self, f"layer{number}"):
                x = block(x, at)
        return x.mean(dim=(2, 3))


def fresh(model: nn.Module, seed: int = 0) -> Any:
    """Every weight and statistic drawn anew, so that no two sets agree."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and "normalize" not in name:
            scale = 0.1 if value.ndim < 2 else (2 / value[0].numel()) ** 0.5
            drawn = torch.randn(value.shape, generator=generator) * scale
            value.copy_(1 + drawn.abs() if value.ndim < 2 else drawn)
    return model.eval()


def parallel(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `nn.DataParallel` names it."""
    return {f"module.{key}": value for key, value in state.items()}


def projector(sets: int) -> nn.Module:
    head = nn.Module()
    head.fc1 = nn.Linear(512, 8)
    head.bn1 = Norm(8, sets)
    return head


def rocl() -> tuple[Any, Any]:
    model = fresh(Authors(None, "shortcut"))
    generator_state = torch.Generator().get_state()
    content = {"model": parallel(model.state_dict()), "epoch": 1000, "acc": 0}
    return content | {"rng_state": generator_state}, lambda x: model(x, 0)


def acl() -> tuple[Any, Any]:
    heads = {"fc": projector(2)}
    model = fresh(Authors(2, "downsample", mean_std=(0.45, 0.22), heads=heads))
    content = {"epoch": 1000, "state_dict": parallel(model.state_dict())}
    return content, lambda x: model(x, 1)


def advcl() -> tuple[Any, Any]:
    heads = {
        "fc_010": nn.Linear(512, 10),
        "head_proj": nn.Sequential(nn.Linear(512, 8), nn.BatchNorm1d(8)),
    }
    model = fresh(Authors(3, "downsample", heads=heads))
    return {"model": parallel(model.state_dict())}, lambda x: model(x, 1)


def deacl() -> tuple[Any, Any]:
    model = fresh(Authors(None, "downsample", padding=2, mean_std=(0.48, 0.25)))
    student = {f"backbone.{k}": v for k, v in model.state_dict().items()}
    teacher = {
        f"momentum_backbone.{k}": torch.zeros_like(v)
        for k, v in model.state_dict().items()
    }
    head = {"classifier.weight": torch.zeros(10, 512)}
    content = {"state_dict": student | teacher | head, "global_step": 1}
    return content, lambda x: model(x, 0)


def dynacl() -> tuple[Any, Any]:
    key, query = (
        fresh(
            Authors(2, "downsample", mean_std=(0.45, 0.22), heads={"fc": projector(2)}),
            seed,
        )
        for seed in (0, 1)
    )
    both = {f"encoder_k.{k}": v for k, v in key.state_dict().items()}
    both |= {f"encoder_q.{k}": v for k, v in query.state_dict().items()}
    return {"epoch": 1000, "state_dict": both}, lambda x: key(x, 1)


def dynacl_pp() -> tuple[Any, Any]:
    """One set of batch norms, and the classifier of pseudo-labels."""
    heads: dict[str, nn.Module] = {"fc": nn.Linear(512, 10)}
    model = fresh(Authors(None, "downsample", mean_std=(0.45, 0.22), heads=heads))
    content = {"state_dict": parallel(model.state_dict()), "epoch": 25}
    return content, lambda x: model(x, 0)


MAKERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "rocl": rocl,
    "acl": acl,
    "advcl": advcl,
    "deacl": deacl,
    "dynacl": dynacl,
    "dynacl-pp": dynacl_pp,
}


@pytest.mark.parametrize("method", FORMATS)
def test_an_imported_encoder_computes_what_the_authors_did(
    method: str, tmp_path: Path
) -> None:
    content, model = MAKERS[method]()
    torch.save(content, tmp_path / "checkpoint.pt")
    done = import_checkpoint(
        tmp_path / "checkpoint.pt", method, tmp_path / "zoo", name=f"{method}-test"
    )
    encoder = load_encoder_by_name(f"{method}-test", tmp_path / "zoo")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), model(x), rtol=1e-4, atol=1e-5)
    assert done.card.training.method == method.replace("-pp", "++")
    assert done.card.training.labels == (method == "dynacl-pp")
    assert done.card.training.extra_data == (method == "advcl")
    assert read_record(done.folder / "card.json", Card) == done.card
    assert done.dropped > 0 or method == "rocl"


def test_the_bare_key_encoder_of_dynacl_is_read_too(tmp_path: Path) -> None:
    content, model = dynacl()
    bare = {
        k.removeprefix("encoder_k."): v
        for k, v in content["state_dict"].items()
        if k.startswith("encoder_k.")
    }
    torch.save(bare, tmp_path / "model_encoder_k.pt")
    import_checkpoint(
        tmp_path / "model_encoder_k.pt", "dynacl", tmp_path / "zoo", name="bare"
    )
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        encoder = load_encoder_by_name("bare", tmp_path / "zoo")
        torch.testing.assert_close(encoder(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("made", "read_as", "message"),
    [
        ("rocl", "acl", "1 sets of batch norm, ACL"),
        ("advcl", "acl", "3 sets of batch norm"),
        ("acl", "rocl", "2 sets of batch norm"),
        ("acl", "dynacl", None),  # the same layout: cannot be told apart
        ("dynacl-pp", "dynacl", "1 sets of batch norm, DynACL"),
        ("dynacl-pp", "deacl", "nothing under backbone., where DeACL"),
        ("rocl", "deacl", "nothing under backbone., where DeACL"),
        ("rocl", "simclr", "unknown format"),
    ],
)
def test_another_methods_checkpoint_is_refused(
    tmp_path: Path, made: str, read_as: str, message: str | None
) -> None:
    torch.save(MAKERS[made]()[0], tmp_path / "checkpoint.pt")
    if message is None:
        import_checkpoint(tmp_path / "checkpoint.pt", read_as, tmp_path, name="x")
        return
    with pytest.raises(UserError, match=message):
        import_checkpoint(tmp_path / "checkpoint.pt", read_as, tmp_path, name="x")
    assert not (tmp_path / "x").exists()


def test_two_networks_in_one_file_are_refused(tmp_path: Path) -> None:
    state = dict(MAKERS["rocl"]()[0]["model"])
    more = {key.removeprefix("module."): value for key, value in state.items()}
    torch.save({**state, **more}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="is there under two prefixes"):
        import_checkpoint(tmp_path / "checkpoint.pt", "rocl", tmp_path, name="x")


@pytest.mark.parametrize(("said", "saw"), [(None, True), (False, False), (True, True)])
def test_a_classifier_in_the_file_means_labels_unless_said_otherwise(
    tmp_path: Path, said: bool | None, saw: bool
) -> None:
    """A plain supervised ResNet has the very layout of DynACL++."""
    torch.save(dynacl_pp()[0], tmp_path / "checkpoint.pt")
    done = import_checkpoint(
        tmp_path / "checkpoint.pt", "dynacl-pp", tmp_path, name="x", labels=said
    )
    assert done.head == "fc"
    assert done.card.training.labels is saw


@pytest.mark.parametrize(
    ("licence", "wanted"),
    [
        ("see source", {"license": "other", "license_name": "see-source"}),
        ("MIT", {"license": "mit"}),
        ("CC BY 4.0!", {"license": "other", "license_name": "cc-by-4.0"}),
    ],
)
def test_licences_are_what_the_hub_takes(licence: str, wanted: dict[str, str]) -> None:
    card = card_of(
        tiny_encoder(),
        "x",
        EMBEDDED_FOLDER / "tarrl-digits" / "model.safetensors",
        licence=licence,
    )
    head = front_matter(card, [])
    assert {k: v for k, v in head.items() if "license" in k} == wanted


def _without(state: dict[str, Tensor]) -> None:
    del state["module.layer4.1.bn2.weight"]


def _with(state: dict[str, Tensor]) -> None:
    state["module.surprise.weight"] = torch.zeros(3)


def _nan(state: dict[str, Tensor]) -> None:
    state["module.conv1.weight"][0] = torch.nan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without, "1 missing"),
        (_with, "1 unexpected"),
        (_nan, "NaN"),
    ],
)
def test_loading_is_strict(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    content, _ = rocl()
    spoil(content["model"])
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=message):
        import_checkpoint(tmp_path / "checkpoint.pt", "rocl", tmp_path, name="x")
    assert not (tmp_path / "x").exists()


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


def test_no_code_of_a_checkpoint_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="pickled objects"):
        import_checkpoint(tmp_path / "checkpoint.pt", "rocl", tmp_path, name="x")
    assert "ran" not in capsys.readouterr().out


def test_the_command(tmp_path: Path) -> None:
    torch.save(rocl()[0], tmp_path / "checkpoint.pt")
    command = [sys.executable, "-m", "zoo", "import", str(tmp_path / "checkpoint.pt")]
    command += ["--format", "rocl", "--name", "rocl-cifar10", "--to", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "rocl-cifar10")
    with pytest.raises(UserError, match="exists already"):
        import_checkpoint(
            tmp_path / "checkpoint.pt", "rocl", tmp_path, name="rocl-cifar10"
        )
