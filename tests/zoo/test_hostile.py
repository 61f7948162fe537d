"""Files that mean harm: each costs one clear error, and the rest is checked as well."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_entries import PLACE, change, rehash
from torch import nn
from whole import read_whole, write_whole
from zoo_collection import ENTRY, Evaluated, add_encoder, card_of, tiny_encoder

from zoo import classifier_file, encoder
from zoo.board.leaderboard import build
from zoo.classifier import Classifier
from zoo.collection.audit import audit, plan
from zoo.collection.publish import Publication, publish
from zoo.collection.sources import FolderSource
from zoo.collection.state_file import read_state
from zoo.errors import UserError
from zoo.files import (
    parse_json,
    read_json,
    read_tensors,
    sha256_file,
    write_json,
    write_tensors,
)
from zoo.records import write_record

Change = Callable[[Any], Any]

DESCRIPTIONS: dict[str, Change] = {
    "larger than any memory": lambda d: d["spec"]["options"].update(
        widths=[1 << 20] * 2
    ),
    "negative": lambda d: d["spec"]["options"].update(widths=[-4, 8]),
    "text for numbers": lambda d: d["spec"]["options"].update(widths="x"),
    "images without pixels": lambda d: d["spec"].update(shape=[1, 0, 8]),
    "images beyond all bounds": lambda d: d["spec"].update(shape=[1, 10**5, 10**5]),
    "unknown architecture": lambda d: d["spec"].update(arch="resnet_s9"),
    "no digest": lambda d: d.pop("digest"),
    "text for the digest": lambda d: d.update(digest="x"),
    "another digest": lambda d: d.update(digest=[0.0] * 8),
}


def redescribe(path: Path, key: str, alter: Change) -> None:
    """Changes what stands beside the weights in a file."""
    tensors, metadata = read_tensors(path)
    alter(metadata[key])
    write_tensors(path, tensors, metadata)


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_an_encoder_that_cannot_be_built(tmp_path: Path, what: str) -> None:
    add_encoder(tmp_path, "broken")
    add_encoder(tmp_path, "sound", seed=1)
    path = tmp_path / "broken" / "model.safetensors"
    redescribe(path, encoder.METADATA_KEY, DESCRIPTIONS[what])
    card = card_of(tiny_encoder(), "broken", path)
    write_record(tmp_path / "broken" / "card.json", card)
    source = FolderSource(tmp_path)
    broken, sound = (audit(source, i, data_dir=None) for i in plan(source, None))
    assert sound.holds
    assert not broken.holds
    assert "\n" not in str(broken.reason)
    with pytest.raises(UserError):
        publish(Publication(runs=[tmp_path / "broken"]), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "alter",
    [
        lambda d: d.update(classes=10**12),
        lambda d: d.update(features=-1),
        lambda d: d.update(shape="x"),
        lambda d: d.pop("spec"),
        lambda d: d.update(spec=None, reference="timm:resnet18"),
        lambda d: d.update(spec=None, reference="/etc/passwd"),
    ],
)
def test_a_classifier_that_cannot_be_built(tmp_path: Path, alter: Change) -> None:
    path = tmp_path / "classifier.safetensors"
    own = tiny_encoder()
    made = Classifier(own, nn.Linear(own.dim, 10), classes=10, shape=own.spec.shape)
    classifier_file.save_classifier(made, path)
    classifier_file.load_classifier(path)
    redescribe(path, classifier_file.METADATA_KEY, alter)
    with pytest.raises(UserError, match=r"broken description|no ready-made classifier"):
        classifier_file.load_classifier(path)


@pytest.mark.parametrize("name", ["../../evil.safetensors", "/evil", "a/b", ".x", ""])
def test_weights_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    add_encoder(tmp_path, "evil")
    path = tmp_path / "evil" / "card.json"
    card = read_json(path) | {"weights": name}
    write_json(path, card)
    with pytest.raises(UserError, match=r"card\.json is not a valid card: weights: "):
        publish(Publication(runs=[tmp_path / "evil"]), str(tmp_path / "zoo"))
    assert {p.name for p in tmp_path.iterdir()} == {"evil"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("clean", "high"), 1e12),  # an axis that long would fill the memory
        (("clean", "low"), -(10**30)),
        (("robust", "value"), 0.99),
        (("robust", "n"), 0),
        (("dataset", "classes"), 10**12),
        (("dataset", "classes"), -1),
        (("dataset", "shape", 1), 10**30),
        (("model", "parameters"), 10**30),
        (("examples", "index", 0), 2**40),
        (("examples", "label", 0), -(2**40)),
        (("examples", "clean_prediction", 0), 2**40),
        (("evidence", "file"), "../../../../model.safetensors"),
    ],
)
def test_figures_that_no_evaluation_gives(
    evaluated: Evaluated, tmp_path: Path, path: tuple[Any, ...], value: float | str
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    content = read_whole(root / PLACE)
    change(content, path, value)
    write_whole(root / PLACE, content)
    rehash(root)
    source = FolderSource(root)
    _, entry = (audit(source, item, data_dir=None) for item in plan(source, None))
    assert "is not a valid result: " in str(entry.reason)
    board = build(source)
    assert board.rows == []
    assert list(board.left_out) == [f"tiny-digits/{ENTRY}"]


def test_only_plain_files_of_a_folder_are_read(tmp_path: Path) -> None:
    add_encoder(tmp_path / "zoo", "linked")
    folder = tmp_path / "zoo" / "linked"
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("mine")
    (folder / "link.txt").symlink_to(tmp_path / "secret" / "key")
    (folder / "folder").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to("loop")
    (folder / "endless").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    row = FolderSource(tmp_path / "zoo").find("linked")
    assert [file.path for file in row.files] == ["card.json", "model.safetensors"]


def test_a_weight_that_is_no_number(tmp_path: Path) -> None:
    add_encoder(tmp_path, "nan")
    path = tmp_path / "nan" / "model.safetensors"
    tensors, metadata = read_tensors(path)
    tensors["backbone.bn1.bias"][0] = math.nan
    write_tensors(path, tensors, metadata)
    card = read_json(tmp_path / "nan" / "card.json") | {"sha256": sha256_file(path)}
    write_json(tmp_path / "nan" / "card.json", card)
    with pytest.raises(UserError, match=r"NaN or infinity in backbone\.bn1\.bias"):
        publish(Publication(runs=[tmp_path / "nan"]), str(tmp_path / "zoo"))
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("content", [b"junk" * 100, b"", b"PK\x03\x04broken"])
def test_a_checkpoint_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pt is not a ") as caught:
        read_state(path)
    reason = str(caught.value).rpartition(": ")[2]
    assert re.search(r"[a-z]{2}", reason)  # words, not what pickle stumbled over
    assert "\n" not in reason


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '[{"b": {"a": 1, "a": 1}}]'])
def test_a_key_that_is_there_twice_is_read_by_nobody(text: str) -> None:
    """Others might take the first, where robrep takes the last."""
    with pytest.raises(UserError, match="it says 'a' twice"):
        parse_json(text.encode(), "it")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.zeros(8, dtype=torch.complex64), "hold torch.complex64 in bn1.bias"),
        (torch.zeros(8, dtype=torch.uint8), "hold torch.uint8 in bn1.bias"),
        (torch.full((8,), 1e300, dtype=torch.float64), "NaN or infinity in bn1.bias"),
    ],
)
def test_weights_that_a_copy_would_change(value: torch.Tensor, reason: str) -> None:
    module = nn.ModuleDict({"bn1": nn.BatchNorm2d(8)})
    state = module.state_dict()
    encoder.load_weights(module, state, source="it")
    with pytest.raises(UserError, match=re.escape(reason)):
        encoder.load_weights(module, {**state, "bn1.bias": value}, source="it")


def test_a_lock_that_leads_elsewhere(tmp_path: Path) -> None:
    add_encoder(tmp_path, "sound")
    (tmp_path / "zoo").mkdir()
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "zoo" / ".publish.lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(UserError, match="is a link"):
        publish(Publication(runs=[tmp_path / "sound"]), str(tmp_path / "zoo"))
    assert (tmp_path / "thesis").read_text() == "mine"
