"""`robrep-zoo verify --all`: all that comes with robrep, and thirty that mean harm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_forgeries as forgeries
import torch
from forging import reseal, save_no_adversarials
from safetensors.torch import load_file, save_file
from test_budgets import HOSTILE
from whole import read_whole, write_whole

from zoo.collection import sources_embedded
from zoo.collection.index import INDEX, Index, scan
from zoo.encoder import METADATA_KEY
from zoo.files import read_json, read_tensors, sha256_file, write_json, write_tensors
from zoo.records import read_record, write_record

EMBEDDED = Path(sources_embedded.__file__).parents[1] / "embedded"
NAME, ENTRY = "tarrl-digits", "digits-linf-0.1-slf"
ENTRIES = 100
Content = dict[str, Any]
Harm = Callable[[Path], None]
"""Does something to the folder of an encoder with one entry."""


def figures(change: Callable[[Content], None], *, keep: bool = False) -> Harm:
    """A forgery of the result; without the measurements that would tell at once."""

    def harm(folder: Path) -> None:
        place = folder / "entries" / ENTRY
        content = read_whole(place)
        if not keep:
            content["measurements"] = {}
        change(content)
        write_whole(place, content)

    return harm


def without_attack(folder: Path) -> None:
    save_no_adversarials(folder / "entries" / ENTRY / "deltas.safetensors")

    def change(content: Content) -> None:
        examples = content["examples"]
        content["attacks"], examples["outcomes"] = [], {}
        pairs = zip(examples["label"], examples["clean_prediction"], strict=True)
        right = [a == b for a, b in pairs]
        examples["verdict"] = ["robust" if r else "misclassified" for r in right]
        forgeries.recount(content)

    figures(change)(folder)


def one_image_many_times(folder: Path) -> None:
    save_no_adversarials(folder / "entries" / ENTRY / "deltas.safetensors")

    def change(content: Content) -> None:
        row = content["examples"]["verdict"].index("robust")
        forgeries.rows_of(content, [row] * 500)

    figures(change)(folder)


def called_undecided(content: Content) -> None:
    examples = content["examples"]
    for row in [i for i, v in enumerate(examples["verdict"]) if v == "misclassified"]:
        examples["clean_prediction"][row], examples["verdict"][row] = -1, "undecided"
    forgeries.recount(content)


def smaller_ball(content: Content) -> None:
    content["threat"]["eps"] = 0.05
    content["evidence"]["tolerance"] *= 0.9


def measured(name: str, **values: Any) -> Harm:
    def change(content: Content) -> None:
        content["measurements"][name].update(values)

    return figures(change, keep=True)


def check_that_failed(content: Content) -> None:
    content["measurements"]["health"]["flags"][0].update(value=0.5)


def rising_curve(content: Content) -> None:
    points = content["measurements"]["eps_curve"]["points"]
    points[3]["robust"] = dict(points[0]["robust"])


def card(**values: Any) -> Harm:
    """Of the training, which the result says otherwise."""

    def harm(folder: Path) -> None:
        content = read_json(folder / "card.json")
        content["training"] |= values
        write_json(folder / "card.json", content)

    return harm


def entry(**values: Any) -> Harm:
    def harm(folder: Path) -> None:
        path = folder / "entries" / ENTRY / "entry.json"
        write_json(path, read_json(path) | values)

    return harm


def deltas(change: Callable[[dict[str, torch.Tensor]], Any]) -> Harm:
    """Perturbations that are not as they are packed."""

    def harm(folder: Path) -> None:
        path = folder / "entries" / ENTRY / "deltas.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"version": "1"})

    return harm


def text(change: Callable[[str], str]) -> Harm:
    """Of the result, which then is none."""

    def harm(folder: Path) -> None:
        path = folder / "entries" / ENTRY / "result.json"
        path.write_text(change(path.read_text()))

    return harm


def described(name: str) -> Harm:
    """An encoder that takes the machine, or is none."""

    def harm(folder: Path) -> None:
        tensors, metadata = read_tensors(folder / "model.safetensors")
        HOSTILE[name](metadata[METADATA_KEY]["spec"])
        _save(folder, tensors, metadata)

    return harm


def variance(folder: Path) -> None:
    tensors, metadata = read_tensors(folder / "model.safetensors")
    name = next(key for key in tensors if key.endswith("running_var"))
    tensors[name].fill_(-1.0)
    _save(folder, tensors, metadata)


def _save(folder: Path, tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
    path = folder / "model.safetensors"
    write_tensors(path, tensors, metadata)
    digest = sha256_file(path)
    write_json(
        folder / "card.json", read_json(folder / "card.json") | {"sha256": digest}
    )
    entry(weights_sha256=digest)(folder)


HARMS: dict[str, Harm] = {
    "no-attack": without_attack,
    "one-image": one_image_many_times,
    "undecided": figures(called_undecided),
    "another-engine": figures(forgeries._engine),
    "full": figures(forgeries._full),
    "plus": figures(forgeries._plus),
    "one-step": figures(forgeries._one_step),
    "fewer-steps": figures(forgeries._fewer_steps),
    "reversed": figures(forgeries._another_order),
    "stranger": figures(forgeries._another_program),
    "spared": figures(forgeries._not_attacked),
    "few-labels": figures(lambda c: c["probe"].update(labels="1%")),
    "all-labels": figures(lambda c: c["probe"].update(labels="100%")),
    "smaller-ball": figures(smaller_ball),
    "bound": measured("bound", b1=0.1),
    "shares": measured("label_free", breakaway_risk=3.0),
    "health": figures(check_that_failed, keep=True),
    "curve": figures(rising_curve, keep=True),
    "labels": card(labels=True),
    "protocol": entry(protocol="alf"),
    "weights": entry(weights_sha256="0" * 64),
    "narrow": deltas(lambda t: t.update(narrow=t["narrow"][:-9].clone())),
    "dtype": deltas(lambda t: t.update(positions=t["positions"].double())),
    "rank": deltas(lambda t: t.update(scale=t["scale"].unsqueeze(0))),
    "deep": text(lambda t: t.replace('"notes": []', '"notes": ' + "[" * 10**5, 1)),
    "digits": text(lambda t: t.replace('"seed": 0', '"seed": ' + "1" * 5000, 1)),
    "variance": variance,
    "std-tiny": described("std-tiny"),
    "stem-half": described("stem-half"),
    "deep-vit": described("deep-vit"),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoders that come with robrep, and between them those that mean harm."""
    root = tmp_path_factory.mktemp("mixed") / "zoo"
    shutil.copytree(EMBEDDED, root)
    for name, harm in HARMS.items():
        folder = root / f"harm-{name}"
        shutil.copytree(EMBEDDED / NAME, folder)
        named = read_json(folder / "card.json") | {"name": folder.name}
        write_json(folder / "card.json", named)
        entry(encoder=folder.name)(folder)
        harm(folder)
        reseal(folder / "entries" / ENTRY)
    write_record(root / INDEX, scan(root))
    return root


@pytest.mark.long
def test_thirty_that_mean_harm_among_fifty_four_that_hold(mixed: Path) -> None:
    """With ROBREP_TEST_DATA, a folder of datasets, no entry is left unchecked."""
    index = read_record(mixed / INDEX, Index)
    entries = {
        f"{row.card.name}/{name}" for row in index.encoders for name in row.entries
    }
    hostile = {f"harm-{name}/{ENTRY}" for name in HARMS}
    assert (len(entries - hostile), len(hostile)) == (ENTRIES, 30)
    data = os.environ.get("ROBREP_TEST_DATA")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "zoo", "verify", "--all", "--source", str(mixed)),
            *("--json", *(("--data-dir", data) if data else ())),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    found = {verdict["item"]: verdict for verdict in json.loads(done.stdout)}
    assert entries < found.keys()
    for name in hostile:
        reason = found[name]["reason"]
        assert not found[name]["holds"], name
        assert "cannot be checked (" not in reason, (name, reason)  # each is foreseen
        assert "\n" not in reason
        assert name in done.stderr
    for name, verdict in found.items():
        if not name.startswith("harm-"):
            left = verdict["unchecked"] and not data
            assert verdict["holds"] or left, (name, verdict["reason"])
    checked = sum(found[name]["holds"] for name in entries - hostile)
    assert checked >= (ENTRIES if data else 19)
