"""Encoders in the package, in a checkout's own collection, and elsewhere."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from zoo_collection import add_encoder

from zoo.collection.index import INDEX, scan, write_index
from zoo.collection.pieces import cut
from zoo.collection.sources_embedded import (
    ELSEWHERE,
    EMBEDDED_FOLDER,
    EmbeddedSource,
)
from zoo.collection.store import load_encoder_by_name, names
from zoo.encoder import fingerprint
from zoo.errors import UserError

ROOT = Path(__file__).parents[3]


def _installed(root: Path) -> Path:
    """A package that carries one encoder and knows of one more."""
    package = root / "zoo" / "embedded"
    add_encoder(package, "small-digits")
    write_index(package / INDEX, scan(package))
    known = {"large-digits": "https://host/zoo"}
    (package / ELSEWHERE).write_text(json.dumps(known))
    return package


def test_a_checkout_finds_what_lies_in_its_collection(tmp_path: Path) -> None:
    package = _installed(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    large = add_encoder(tmp_path / "collection", "large-digits", seed=1)
    add_encoder(tmp_path / "collection", "small-digits", seed=2)
    source = EmbeddedSource(package)
    assert names(source) == ["large-digits", "small-digits"]
    found = load_encoder_by_name("large-digits", source)
    assert fingerprint(found) == fingerprint(large)
    embedded = source.fetch(source.find("small-digits"), "model.safetensors")
    assert embedded.is_relative_to(package)  # the package's own comes first


def test_weights_in_pieces_are_put_together_and_checked(tmp_path: Path) -> None:
    package = _installed(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    large = add_encoder(tmp_path / "collection", "large-digits", seed=1)
    weights = tmp_path / "collection" / "large-digits" / "model.safetensors"
    content = weights.read_bytes()
    before = EmbeddedSource(package).find("large-digits")
    made = cut(weights, 1000)
    assert not weights.exists()
    assert max(piece.stat().st_size for piece in made) <= 1000
    assert b"".join(piece.read_bytes() for piece in made) == content
    source = EmbeddedSource(package)
    assert source.find("large-digits") == before
    for _ in range(2):  # put together, then from the cache
        found = load_encoder_by_name("large-digits", source)
        assert fingerprint(found) == fingerprint(large)
    joined = source.fetch(before, "model.safetensors")
    joined.write_bytes(content[:-1] + b"x")  # damaged there: made again
    assert source.fetch(before, "model.safetensors").read_bytes() == content
    made[1].write_bytes(b"x" * 1000)
    joined.unlink()
    with pytest.raises(UserError, match="SHA-256"):
        source.fetch(before, "model.safetensors")
    made[1].unlink()
    with pytest.raises(UserError, match=r"pieces 1 to \d+ of \d+"):
        source.fetch(before, "model.safetensors")


def test_elsewhere_the_error_says_which_source_has_it(tmp_path: Path) -> None:
    package = _installed(tmp_path)
    # Where packages are installed, `collection` may be anybody's.
    add_encoder(tmp_path / "collection", "large-digits")
    source = EmbeddedSource(package)
    assert names(source) == ["small-digits"]
    with pytest.raises(UserError, match=r"large-digits.*--source https://host/zoo"):
        load_encoder_by_name("large-digits", source)
    with pytest.raises(UserError, match="no encoder 'larg'"):
        source.find("larg")


def test_a_broken_card_of_a_checkout_is_named(tmp_path: Path) -> None:
    package = _installed(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    for seed, name in enumerate(("large-digits", "small-digits", "sound-digits")):
        add_encoder(tmp_path / "collection", name, seed=seed)
    for name in ("large-digits", "small-digits"):
        (tmp_path / "collection" / name / "card.json").write_text("{")
    source = EmbeddedSource(package)
    assert names(source) == ["small-digits", "sound-digits"]
    assert list(source.left_out) == ["large-digits"]  # the package's own comes first
    with pytest.raises(UserError, match=r"card\.json is not valid JSON"):
        source.find("large-digits")
    (package / INDEX).unlink()
    (package / "small-digits" / "card.json").write_text("{")
    add_encoder(tmp_path / "collection", "small-digits-2", seed=4)
    source = EmbeddedSource(package)
    assert names(source) == ["small-digits-2", "sound-digits"]
    assert sorted(source.left_out) == ["large-digits", "small-digits"]


def test_without_embedded_encoders_there_are_none(tmp_path: Path) -> None:
    assert names(EmbeddedSource(tmp_path / "zoo" / "embedded")) == []


def test_what_the_checkout_holds_is_named_for_those_who_have_none() -> None:
    path = EMBEDDED_FOLDER / ELSEWHERE
    known = json.loads(path.read_text()) if path.is_file() else {}
    beside = {card.parent.name for card in ROOT.glob("collection/*/card.json")}
    assert beside == set(known)


def _wheel_files() -> Any:
    spec = importlib.util.spec_from_file_location(
        "wheel_files", ROOT / ".ci" / "wheel_files.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ci_refuses_large_files_and_large_wheels(tmp_path: Path) -> None:
    too_large = _wheel_files().too_large
    wheel = tmp_path / "robrep.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("zoo/a.safetensors", torch.zeros(1000).numpy().tobytes())
        archive.writestr("zoo/b.safetensors", b"b" * 3999)
    assert too_large(wheel) == []
    assert too_large(wheel, piece=4000) == []
    (fault,) = too_large(wheel, piece=3999)
    assert fault.startswith("zoo/a.safetensors has 4,000 bytes")
    (fault,) = too_large(wheel, limit=7999)
    assert fault.startswith("the wheel has")


def test_no_embedded_file_is_larger_than_the_budget() -> None:
    piece = _wheel_files().PIECE
    sizes = {path: path.stat().st_size for path in EMBEDDED_FOLDER.rglob("*")}
    assert [str(path) for path, size in sizes.items() if size > piece] == []
