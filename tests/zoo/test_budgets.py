"""What passes a budget is refused by one error that says which, before it costs."""

from __future__ import annotations

import gzip
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from limits import small_memory
from zoo_collection import add_encoder, card_of, tiny_encoder

from zoo import budgets, yaml_text
from zoo.board.leaderboard import build
from zoo.board.page import page
from zoo.collection.audit import audit, plan
from zoo.collection.importers import import_checkpoint
from zoo.collection.index import Index
from zoo.collection.sources import FolderSource
from zoo.collection.state_file import read_state
from zoo.datasets.idx import read_idx
from zoo.datasets.image_file import read_header
from zoo.datasets.names import split_name
from zoo.encoder import METADATA_KEY, load_encoder
from zoo.errors import UserError
from zoo.files import parse_json, read_json, read_tensors, write_json, write_tensors
from zoo.records import validated, write_record

JSON: dict[str, tuple[bytes, str]] = {
    "deep": (b"[" * 100_000 + b"]" * 100_000, r"nested more than 64 deep"),
    "deep enough for the parser": (b"[" * 80 + b"]" * 80, r"nested more than 64"),
    "long number": (b"1" * 5000, "a number of 5000 digits"),
    "many values": (b"[" + b"0," * 4_000_000 + b"0]", r"4,000,00\d values; robrep"),
    "many keys": (
        json.dumps({str(i): 0 for i in range(30_000)}).encode(),
        "30,000 keys in one object",
    ),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
    "half of a pair": (rb'{"a": "\ud800"}', "surrogates not allowed"),
    "half of a pair as key": (rb'{"\udfff": 1}', "surrogates not allowed"),
    "NaN": (b"[NaN]", "NaN is not a finite number"),
    "1e999": (b"[1e999]", "1e999 is not a finite number"),
}


@pytest.mark.parametrize("what", JSON)
def test_json(what: str) -> None:
    content, reason = JSON[what]
    with pytest.raises(UserError, match=reason) as caught:
        parse_json(content, "index.json")
    assert str(caught.value).startswith("index.json is ")


def test_a_mark_of_byte_order_is_no_fault() -> None:
    assert parse_json(b"\xef\xbb\xbf[1]", "x") == [1]


def test_a_list_of_a_million_errors_costs_one() -> None:
    content = {"schema_version": 1, "encoders": [{}] * 1_000_000}
    with small_memory(400), pytest.raises(UserError, match=r"encoders\.0\.card: "):
        validated(content, Index, "index.json")


ODD_YAML = {
    "[" * 10_000: "nested",
    "a: &a [1]\nb: *a": "alias",
    "!!timestamp x": "not valid YAML",
    "!!int x": "not valid YAML",
    "!!bool x": "not valid YAML",
    "!!float ''": "not valid YAML",
    "!!binary x": "not valid YAML",
    "!!set {a, b}": "not valid YAML",
    "a: .nan": "not a finite number",
    "1: 2": "an? int where text",
    "a: " + "9" * 5000: "not valid YAML",
    "x" * 100_000: "100,000 characters",
    "!!python/object/apply:os.system [id]": "not valid YAML",
}


@pytest.mark.parametrize("text", ODD_YAML, ids=lambda text: text[:12])
def test_yaml(text: str) -> None:
    with pytest.raises(UserError, match=ODD_YAML[text]):
        yaml_text.parse(text, "recipe")


@pytest.mark.parametrize("text", ["2020-99-99", "2020-01-01", "2001-12-14t21:59:43Z"])
def test_a_date_is_text(text: str) -> None:
    assert yaml_text.parse(f"a: {text}", "recipe") == {"a": text}


def test_idx_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    path = tmp_path / "images-idx3-ubyte.gz"
    head = struct.pack(">BBBBI", 0, 0, 8, 1, 10)
    path.write_bytes(gzip.compress(head + bytes(120 << 20), compresslevel=1))
    with (
        small_memory(60),
        pytest.raises(UserError, match="more than 10 bytes where its header says 10"),
    ):
        read_idx(path)
    path.write_bytes(gzip.compress(struct.pack(">BBBBII", 0, 0, 8, 2, 2**31, 2**31)))
    with pytest.raises(budgets.BudgetError, match=r"about 10\^18 bytes by its header"):
        read_idx(path)


def png(width: int, height: int) -> bytes:
    """The beginning of a picture of that size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + end

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(9000, 9000), (13_000, 13_000), (2**31 - 1, 9)])
def test_pictures_of_too_many_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(png(*size))
    with pytest.raises(budgets.BudgetError, match=r"x\.png is refused: .* pixels"):
        read_header(path)


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    link = tmp_path / "endless.png"
    link.symlink_to("/dev/zero")
    readers: list[Callable[[Path], Any]] = [
        read_header,
        read_idx,
        read_json,
        read_state,
        read_tensors,
        yaml_text.read,
    ]
    for read in readers:
        for path in (pipe, link, tmp_path):
            with pytest.raises(UserError, match="is no plain file"):
                read(path)


STATES: dict[str, Any] = {
    "integer keys": {0: torch.zeros(2)},
    "tuple keys": {("a", 1): torch.zeros(2)},
    "mixed keys": {"a": torch.zeros(2), 1: torch.zeros(2)},
    "larger than its file": {"a": torch.zeros(1).expand(1 << 20, 1 << 20)},
    "sparse": {"a": torch.zeros(3, 3).to_sparse()},
    "no tensors": [1, 2],
}


@pytest.mark.parametrize("what", STATES)
def test_state_dicts_that_are_none(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.pt"
    torch.save(STATES[what], path)
    with pytest.raises(UserError, match=r"x\.pt "):
        read_state(path)


def test_a_checkpoint_that_unpacks_to_more(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(20 << 20))
    with pytest.raises(budgets.BudgetError, match="bytes when unpacked"):
        read_state(path)


def test_every_damage_to_a_checkpoint(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"a": torch.zeros(2)}, whole, _use_new_zipfile_serialization=False)
    content, path = whole.read_bytes(), tmp_path / "x.pt"
    for at in range(0, len(content), 3):
        for value in (0, 0x80, 0xFF, ord("R")):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            try:
                read_state(path)
            except UserError as error:
                assert "\n" not in str(error)  # noqa: PT017 - some damage is harmless


def test_a_checkpoint_with_a_normalisation_by_zero(tmp_path: Path) -> None:
    from zoo.encoder import Encoder, EncoderSpec

    state = Encoder(EncoderSpec(arch="resnet18", shape=(3, 32, 32))).backbone
    extra = {"normalize.mean": torch.zeros(3), "normalize.std": torch.zeros(3)}
    path = tmp_path / "x.pt"
    torch.save({**state.state_dict(), **extra}, path)
    with pytest.raises(UserError, match=r"std\.0"):
        import_checkpoint(path, "rocl", tmp_path / "zoo", name="x")


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "stem-half": lambda s: s["options"].update(stem_stride=0.5),
    "stem-huge": lambda s: s["options"].update(stem_stride=10**30),
    "side-huge": lambda s: s.update(shape=[1, 4096, 4096]),
    "deep-vit": lambda s: s.update(
        arch="timm:vit_giant_patch14_224", options={"depth": 400}
    ),
    "fine-vit": lambda s: s.update(
        arch="timm:vit_tiny_patch16_224", options={"img_size": 4096, "patch_size": 1}
    ),
    "std-tiny": lambda s: s.update(std=[1e-320]),
    "wide": lambda s: s["options"].update(widths=[60_000, 60_000]),
    "blocks": lambda s: s["options"].update(blocks=[60_000, 60_000]),
    "nested": lambda s: s.update(options={"widths": nested(90)}),
}


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def hostile_zoo(root: Path) -> list[str]:
    """Two sound encoders and one for each way to mean harm; names of those."""
    add_encoder(root, "a-sound")
    add_encoder(root, "z-sound", seed=1)
    for name, alter in HOSTILE.items():
        add_encoder(root, name)
        path = root / name / "model.safetensors"
        tensors, metadata = read_tensors(path)
        alter(metadata[METADATA_KEY]["spec"])
        write_tensors(path, tensors, metadata)
        write_record(root / name / "card.json", card_of(tiny_encoder(), name, path))
    path = root / "variance" / "model.safetensors"
    add_encoder(root, "variance")
    tensors, metadata = read_tensors(path)
    tensors["backbone.bn1.running_var"].fill_(-1.0)
    write_tensors(path, tensors, metadata)
    write_record(
        root / "variance" / "card.json", card_of(tiny_encoder(), "variance", path)
    )
    return [*HOSTILE, "variance"]


def test_no_hostile_encoder_stops_the_others(tmp_path: Path) -> None:
    hostile = hostile_zoo(tmp_path)
    source = FolderSource(tmp_path)
    with small_memory(1500):
        found = {
            str(item): audit(source, item, data_dir=None) for item in plan(source, None)
        }
    assert {name for name, verdict in found.items() if verdict.holds} == {
        "a-sound",
        "z-sound",
    }
    for name in hostile:
        reason = str(found[name].reason)
        assert "cannot be checked (" not in reason, name  # foreseen, every one
        assert "\n" not in reason
        with pytest.raises(UserError):
            load_encoder(tmp_path / name / "model.safetensors")


def test_no_address_in_a_card_stops_the_leaderboard(tmp_path: Path) -> None:
    add_encoder(tmp_path, "odd", source="https://[")
    page(build(FolderSource(tmp_path)))
    card = read_json(tmp_path / "odd" / "card.json")
    path = tmp_path / "odd" / "card.json"
    path.write_text(json.dumps(card | {"notes": "\ud800"}))
    source = FolderSource(tmp_path)
    page(build(source))
    assert "surrogates not allowed" in source.left_out["odd"]
    write_json(path, card)


def test_images_of_too_many_values() -> None:
    with pytest.raises(budgets.BudgetError, match="12,000,000 values in one image"):
        split_name("digits@3x2000x2000")
    found = split_name("digits@3x1024x1024")[1]
    assert found is not None
    assert found.shape == (3, 1024, 1024)
