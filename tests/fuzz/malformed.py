"""Malformed inputs from a seed: sound files that are damaged in all usual ways.

One file in spite of its length: one table of readers and words, each a few lines.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import random
import shutil
import struct
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import rich_click as click
import torch
from PIL import Image
from safetensors.torch import save

import zoo
from pretrain.cli import assemble
from pretrain.run_folder import TrainingFolder
from robrep_eval.run.chunk import OUTCOMES, read_chunk
from zoo.collection.index import Index
from zoo.collection.state_file import read_state
from zoo.columns import put
from zoo.commands.numbers import DECIMAL, WHOLE
from zoo.compact import pack as pack_exactly
from zoo.datasets.base import Dataset
from zoo.datasets.idx import read_idx
from zoo.datasets.image_file import read_header, read_pixels
from zoo.datasets.loading import load
from zoo.datasets.local import LOCAL, noted
from zoo.datasets.names import check_own_name, split_name
from zoo.deltas import unpack
from zoo.device import check_device
from zoo.encoder import Encoder, EncoderSpec, load_encoder, save_encoder
from zoo.errors import UserError
from zoo.evidence_file import read_claims
from zoo.files import read_json, read_tensors, sha256_file
from zoo.label_budget import LabelBudget
from zoo.records import Card, Outcome, Result, read_record
from zoo.result_file import RESULT, read_result
from zoo.threat import ThreatModel, parse_eps, parse_norm
from zoo.yaml_text import parse, read

Reader = Callable[[Path], Any]
ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 2**63, -(10**40), 0.5, 1e308, 1e-320, "", "\ud800", "\x1b[2J"),
    *("../../x", "https://[", "1" * 300, "\u202e", [], {}, [[]], [{}] * 50, {"": {}}),
    *("2020-99-99", "nan", "a\x00b", "~nobodyx", "x" * 5000),
]
ODD_WORDS = [
    *("", " ", "-", "nan", "inf", "-1", "1/0", "8/255/3", "1e999", "0x1", "9" * 400),
    *("imagefolder:~nobodyx", "imagefolder:", "imagefolder:\x00", "digits@3x2000x2000"),
    *("digits@0x0x0", "digits@", "@", "meta", "cuda:99999999999999999999", "cpu:-1"),
    *("a=[1", "a=!!timestamp x", "a=2020-99-99", "\ud800", "[/x]", "zoo:", "hf://"),
    *("standard", ",", "fgsm", "0.1", "10%", "1_000", "\u0661\u0662", "\uff11", "1e-3"),
    *("Linf", "digits", "cpu", "widths=[1]", "\U0001d7cf.5", "@1x8x8", "@1x\u0668x8"),
    *("http://[", "https://u:p@h", "timm:../x", "L\u0130nf", "\u0661/255", "a=&a *a"),
]


def card() -> dict[str, Any]:
    """A card as JSON."""
    training = {"method": "tarrl", "dataset": "digits", "recipe": {"a": [1, {"b": 2}]}}
    return {
        "schema_version": 1,
        "name": "x",
        "description": "d",
        "arch": "resnet_s8",
        "shape": [1, 8, 8],
        "dim": 8,
        "training": training,
        "sha256": "0" * 64,
        "licence": "MIT",
    }


def index() -> dict[str, Any]:
    """An index as JSON."""
    files = [
        {"path": name, "sha256": "0" * 64, "size": 1}
        for name in ("card.json", "model.safetensors")
    ]
    row = {"card": card(), "folder": "x", "files": files, "entries": []}
    return {"schema_version": 1, "encoders": [row]}


def encoder_file(folder: Path) -> bytes:
    """A very small encoder."""
    options = {"widths": [2, 2], "blocks": [1, 1], "stem_stride": 1}
    path = folder / "sound.safetensors"
    save_encoder(
        Encoder(EncoderSpec(arch="resnet_s8", options=options, shape=(1, 4, 4))), path
    )
    return path.read_bytes()


def picture(kind: str) -> bytes:
    """Four by four pixels."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def state_file(*, old: bool) -> bytes:
    """A state dict as torch saves it."""
    stream = io.BytesIO()
    state = {"state_dict": {"a": torch.ones(2), "b": torch.zeros(1, dtype=torch.int8)}}
    torch.save(state, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def deltas() -> dict[str, torch.Tensor]:
    """Two claims as tensors."""
    import zlib

    def stream(body: bytes) -> torch.Tensor:
        return torch.frombuffer(bytearray(zlib.compress(body)), dtype=torch.uint8)

    return {
        "code": torch.tensor([0, 1], dtype=torch.uint8),
        "scale": torch.ones(2),
        "positions": torch.tensor([0, 1], dtype=torch.int32),
        "attack": torch.zeros(2, dtype=torch.uint8),
        "narrow": stream(bytes(64)),
        "wide": stream(bytes(128)),
        "exact": torch.zeros(0, 1, 8, 8),
    }


ENTRY = Path(zoo.__file__).parent / "embedded/tarrl-digits/entries/digits-linf-0.1-slf"
LOCAL_NOTE = {"dataset": "imagefolder:/nowhere/images"}
NOTES = {"seconds": "1.5", "notes": "[]"}


@cache
def evaluated() -> Dataset:
    """The images that the evidence is about."""
    return load("digits", "test", None).take(4)


def claims(*, packed: bool) -> dict[str, torch.Tensor]:
    """What lies beside a result, for two foolings."""
    rows = {"positions": torch.tensor([0, 3]), "attack": torch.tensor([0, 1])}
    return rows | adversarials(2, packed=packed)


def adversarials(count: int, *, packed: bool) -> dict[str, torch.Tensor]:
    """As they are written, or as they were before they were packed."""
    images = torch.zeros(count, 1, 8, 8)
    if not packed:
        return {"images": images}
    threat = ThreatModel(norm="Linf", eps=0.1)
    found = pack_exactly(images, evaluated().images(slice(count)), threat)
    return {"stream": found.stream, "ends": found.ends}


def chunk(*, packed: bool) -> dict[str, torch.Tensor]:
    """What an attack came to on three images, of which it fooled one."""
    codes = [OUTCOMES.index(o) for o in (Outcome.HELD, Outcome.FOOLED, Outcome.SKIPPED)]
    return {
        "outcomes": torch.tensor(codes, dtype=torch.uint8),
        "rows": torch.tensor([1]),
        **adversarials(1, packed=packed),
    }


def training(folder: Path) -> TrainingFolder:
    """A run of two epochs, as it lies on disk."""
    recipe = assemble("tarrl-digits", {}, ())
    run = TrainingFolder(folder / "run", recipe)
    run.create(recipe)
    for epoch in (1, 2):
        run.log({"epoch": epoch, "loss": 0.5})
    weights = {"a": torch.ones(2)}
    state = {"epoch": 2, "seconds": 1.0, "best": 0.5, "average": None}
    run.save({**state, "method": weights, "optimizer": {"state": {}}})
    return run


class NonsenseError(Exception):
    """Something was read that means nothing."""


def sane(holds: bool, value: Any) -> None:
    """Raises `NonsenseError` for a value that should have been refused."""
    if not holds:
        raise NonsenseError(repr(value)[:300])


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Cut, doubled, with bytes or blocks of it changed."""
    found = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8))):
        if not found:
            break
        at, kind = dice.randrange(len(found)), dice.randrange(6)
        if kind == 0:
            del found[at:]
        elif kind == 1:
            found[at] = dice.randrange(256)
        elif kind == 2:
            found[at] ^= 1 << dice.randrange(8)
        elif kind == 3:
            found[at:at] = dice.randbytes(dice.choice((1, 4, 100)))
        elif kind == 4:
            found[at : at + 4] = dice.choice(
                (b"\xff" * 4, bytes(4), b"\x7f" + b"\xff" * 3)
            )
        else:
            end = at + dice.randrange(64)
            found[at:at] = found[at:end] * dice.choice((1, 50))
    return bytes(found)


def altered(content: Any, dice: random.Random) -> Any:
    """Parsed JSON with one value, key or length of it changed, at any depth."""
    if not isinstance(content, dict | list) or not content or dice.random() < 0.15:
        if dice.random() < 0.05:
            deep: Any = 0
            for _ in range(dice.choice((70, 900))):
                deep = [deep]
            return deep
        return dice.choice(ODD_VALUES)
    if isinstance(content, list):
        at = dice.randrange(len(content))
        rest = [altered(v, dice) if i == at else v for i, v in enumerate(content)]
        return rest * dice.choice((1, 1, 1, 0, 3))
    key = dice.choice(list(content))
    kept = {k: v for k, v in content.items() if k != key}
    if dice.random() < 0.15:
        return kept
    name = str(dice.choice(ODD_VALUES)) if dice.random() < 0.1 else key
    return {**kept, name: altered(content[key], dice)}


def as_json(content: Any, dice: random.Random) -> bytes:
    """As bytes, in an encoding that may be a wrong one."""
    text = json.dumps(content)
    if dice.random() < 0.1:
        return text.encode(dice.choice(("utf-16", "utf-32", "utf-8-sig")))
    return damaged(text.encode(), dice) if dice.random() < 0.2 else text.encode()


def tampered(
    tensors: dict[str, torch.Tensor],
    dice: random.Random,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """Tensors of which one has another length, rank, dtype or name, as a file."""
    name = dice.choice(list(tensors))
    old = tensors[name]
    new = dice.choice(
        (
            old[:1],
            old.repeat(3, *[1] * (old.ndim - 1)),
            old.unsqueeze(0),
            old.flatten()[:0],
            torch.tensor(1.0),
            old.to(
                dice.choice((torch.float16, torch.bool, torch.int64, torch.float64))
            ),
            old + 200,
            torch.full_like(old.float(), float("nan")),
        )
    )
    found = {**tensors, name: new.contiguous().clone()}
    if dice.random() < 0.2:
        del found[name]
    return save(found, metadata)


def _columns(path: Path) -> None:
    put({"examples": {}}, Result, path)


def _evidence(path: Path) -> None:
    """Read as the evidence of a result that states its checksum."""
    result = read_result(ENTRY)
    stated = {"file": path.name, "file_sha256": sha256_file(path)}
    evidence = result.evidence.model_copy(update=stated)
    result = result.model_copy(update={"evidence": evidence})
    found = read_claims(path.parent, result, evaluated())
    count = len(found.images)
    sane(found.images[:].shape == (count, 1, 8, 8), found)
    sane(found.positions.shape == found.attack_index.shape == (count,), found)


def _chunk(path: Path) -> None:
    found = read_chunk(path, 3, (1, 8, 8))
    sane(found.outcomes.count(Outcome.FOOLED) == len(found.images), found)


def _local(path: Path) -> None:
    path.replace(path.parent / LOCAL)
    found = noted(path.parent)
    sane(found is not None and found.startswith("imagefolder:"), found)


def _line(lines: bytes, dice: random.Random) -> bytes:
    """Metrics of which one line is damaged, or another record."""
    odd = as_json(altered({"epoch": 3, "loss": 0.5}, dice), dice)
    return damaged(lines, dice) if dice.random() < 0.5 else lines + odd + b"\n" + lines


def _resumed(run: TrainingFolder, file: Path, path: Path) -> None:
    """Taken up as a run's own file."""
    before = {f: f.read_bytes() for f in (run.metrics_file, run.checkpoint_file)}
    try:
        file.write_bytes(path.read_bytes())
        state = run.load(truncate=False)
        sane(state is None or type(state["epoch"]) is int, state)
        epochs = [line["epoch"] for line in run.metrics()]
        sane(all(epoch >= 0 for epoch in epochs), epochs)
    finally:
        for each, content in before.items():
            each.write_bytes(content)


def _described(body: bytes, dice: random.Random) -> bytes:
    """An encoder's file with another description."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    described = json.loads(header["__metadata__"]["robrep.encoder"])
    header["__metadata__"]["robrep.encoder"] = json.dumps(altered(described, dice))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body[8 + length :]


Make = Callable[[random.Random], bytes]


def readers(folder: Path) -> dict[str, tuple[str, Make, Reader]]:
    """Name of a reader to (suffix, what makes an input, the reader)."""
    weights, npy = encoder_file(folder), struct.pack(">BBBBII", 0, 0, 8, 2, 2, 3)
    data = load("digits", "test", None).take(4)
    yaml = b"method: tarrl\ndata: digits\nthreat: {norm: Linf, eps: 8/255}\nbatch: 2\n"
    columns = {"examples/label": torch.zeros(3, dtype=torch.uint8)}
    columns["examples/index"] = torch.arange(3)
    for path in ENTRY.glob("columns-*"):
        shutil.copy(path, folder)
    result = json.loads((ENTRY / RESULT).read_text())
    run = training(folder)
    lines = run.metrics_file.read_bytes()
    checkpoint = run.checkpoint_file.read_bytes()
    found: dict[str, tuple[str, Make, Reader]] = {
        "card": (
            ".json",
            lambda d: as_json(altered(card(), d), d),
            lambda p: read_record(p, Card),
        ),
        "index": (
            ".json",
            lambda d: as_json(altered(index(), d), d),
            lambda p: read_record(p, Index),
        ),
        "json": (
            ".json",
            lambda d: damaged(json.dumps(index()).encode(), d),
            read_json,
        ),
        "result": (".json", lambda d: as_json(altered(result, d), d), read_result),
        "tensors": (".safetensors", lambda d: damaged(weights, d), read_tensors),
        "encoder": (".safetensors", lambda d: _described(weights, d), load_encoder),
        "columns": (".safetensors", lambda d: tampered(columns, d), _columns),
        "deltas": (
            ".safetensors",
            lambda d: tampered(deltas(), d),
            lambda p: unpack(read_tensors(p)[0], data),
        ),
        **{
            f"evidence{name}": (
                ".safetensors",
                partial(tampered, claims(packed=packed)),
                _evidence,
            )
            for name, packed in (("", True), (" not packed", False))
        },
        **{
            f"chunk{name}": (
                ".safetensors",
                partial(tampered, chunk(packed=packed), metadata=NOTES),
                _chunk,
            )
            for name, packed in (("", True), (" not packed", False))
        },
        "local": (".json", lambda d: as_json(altered(LOCAL_NOTE, d), d), _local),
        "metrics": (
            ".jsonl",
            lambda d: _line(lines, d),
            lambda p: _resumed(run, run.metrics_file, p),
        ),
        "checkpoint": (
            ".pt",
            lambda d: damaged(checkpoint, d),
            lambda p: _resumed(run, run.checkpoint_file, p),
        ),
        "idx": (".idx", lambda d: damaged(npy + bytes(6), d), read_idx),
        "idx.gz": (
            ".gz",
            lambda d: damaged(gzip.compress(npy + bytes(6)), d),
            read_idx,
        ),
        "yaml": (".yaml", lambda d: damaged(yaml, d), read),
        "state": (".pt", lambda d: damaged(state_file(old=False), d), read_state),
        "old state": (".pt", lambda d: damaged(state_file(old=True), d), read_state),
    }
    for kind in ("png", "jpeg", "ppm", "gif", "bmp", "tiff", "webp"):
        found[kind] = (f".{kind}", _picture(kind), _pixels)
    return found


def _picture(kind: str) -> Make:
    content = picture(kind)
    return lambda dice: damaged(content, dice)


def _pixels(path: Path) -> None:
    read_header(path)
    read_pixels(path, 3)


def words(dice: random.Random) -> str:
    """What somebody might type, or not."""
    word = dice.choice(ODD_WORDS)
    return word if dice.random() < 0.5 else word + dice.choice(ODD_WORDS)


def arguments() -> dict[str, Callable[[str], Any]]:
    """What reads the words of a command line, by flag."""
    from robrep_eval.attacks.battery import build
    from robrep_eval.run.request import read_normalization, read_pair
    from zoo.collection.opening import open_source
    from zoo.collection.references import LoadOptions
    from zoo.collection.references import load as load_reference

    options = LoadOptions(shape=(1, 8, 8), classes=10)
    return {
        "--eps": lambda t: _number(t, parse_eps(t)),
        "--limit": lambda t: _number(t, _flag(WHOLE, t)),
        "--l2": lambda t: _number(t, _flag(DECIMAL, t)),
        "--labels": lambda t: _number(t, LabelBudget.parse(t).amount),
        "--dataset-name": lambda t: sane("/" not in check_own_name(t), t),
        "--norm": parse_norm,
        "--dataset": lambda t: load(t, "test", None),
        "--device": check_device,
        "--source": open_source,
        "--attacks": lambda t: sane(
            bool(build(t, "robrep", norm="Linf").name.strip()), t
        ),
        "--normalize": lambda t: sane(bool(read_normalization(t)) and t.isascii(), t),
        "--arch-option": read_pair,
        "--model": lambda t: load_reference(t, options),
        "-o": lambda t: assemble("tarrl-digits", {}, (t,)),
        "-o seed": lambda t: assemble("tarrl-digits", {}, (f"seed={t}",)),
        "-o attack": lambda t: assemble("tarrl-digits", {}, (f"attack.steps={t}",)),
        "shape": lambda t: sane(
            split_name(t)[1] is None or t.rpartition("@")[2].isascii(), t
        ),
        "yaml text": lambda t: parse(t, "x"),
    }


def _number(text: str, value: float) -> None:
    """Of the digits 0 to 9 alone, and finite."""
    sane(text.isascii() and "_" not in text and math.isfinite(value), (text, value))


def _flag(kind: click.ParamType[Any], text: str) -> Any:
    """As a command line reads the value of a flag."""
    try:
        return kind.convert(text, None, None)
    except click.BadParameter as error:
        raise UserError(error.format_message()) from None
