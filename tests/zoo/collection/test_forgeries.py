"""Forgeries that a leaderboard once ranked; each is refused, or not ranked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forging import rehash, save_no_adversarials
from safetensors.torch import load_file, save_file
from torch import nn
from whole import read_whole, write_whole

from zoo import datasets
from zoo.board.leaderboard import build
from zoo.classifier import Classifier
from zoo.collection import sources_embedded
from zoo.collection.audit import audit, plan
from zoo.collection.index import INDEX, scan
from zoo.collection.sources import FolderSource
from zoo.collection.store import load_encoder_by_name
from zoo.encoder import fingerprint
from zoo.records import Proportion, write_record
from zoo.selection import SELECTED
from zoo.threat import ThreatModel

NAME, ENTRY = "tarrl-digits", "digits-linf-0.1-slf"
REFERENCE = f"{NAME}/{ENTRY}"
Content = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A collection that holds one published entry, 86.1% robust by `standard`."""
    origin = Path(sources_embedded.__file__).parents[1] / "embedded" / NAME
    shutil.copytree(origin, tmp_path / "zoo" / NAME)
    place = tmp_path / "zoo" / NAME / "entries" / ENTRY
    for worst in place.glob("worst*"):  # which a forger would leave out
        worst.unlink()
    write_record(tmp_path / "zoo" / INDEX, scan(tmp_path / "zoo"))
    return tmp_path / "zoo"


def forge(root: Path, change: Callable[[Content], None]) -> None:
    """Alters the result and drops adversarials of foolings that it no longer states;
    all checksums agree again."""
    place = root / NAME / "entries" / ENTRY
    content = read_whole(place)
    content["measurements"] = {}  # which say more than a forger wants to be asked
    change(content)
    write_whole(place, content)
    rehash(root, place)


def reason(root: Path) -> str | None:
    """Why `verify` refuses the entry; None if it holds."""
    source = FolderSource(root)
    return audit(source, plan(source, REFERENCE)[0], data_dir=None).reason


def standing(root: Path) -> tuple[int, str, str]:
    """Rank, battery and images, as the leaderboard shows them without verifying."""
    (row,) = build(FolderSource(root)).rows
    return row.rank, row.battery, row.images


def recount(content: Content) -> None:
    """Figures that follow from the columns, as a careful forger states them."""
    examples = content["examples"]
    n, verdict = len(examples["index"]), examples["verdict"]
    pairs = zip(examples["label"], examples["clean_prediction"], strict=True)
    content["clean"] = Proportion.of(sum(a == b for a, b in pairs), n).model_dump()
    content["robust"] = Proportion.of(verdict.count("robust"), n).model_dump()
    content["undecided"] = verdict.count("undecided")
    content["dataset"]["n"] = n
    for at, run in enumerate(content["attacks"]):
        outcomes = examples["outcomes"][run["name"]]
        run["attempted"] = n - outcomes.count("skipped")
        for name in ("fooled", "refused", "undecided"):
            run[name] = outcomes.count(name)
        so_far = [examples["outcomes"][r["name"]] for r in content["attacks"][: at + 1]]
        held = [
            examples["label"][row] == examples["clean_prediction"][row]
            and not any(column[row] == "fooled" for column in so_far)
            for row in range(n)
        ]
        run["robust"] = Proportion.of(sum(held), n).model_dump()
    content["evidence"]["count"] = sum(run["fooled"] for run in content["attacks"])


def rows_of(content: Content, rows: list[int]) -> None:
    """These rows of the examples alone, in this order."""
    examples = content["examples"]
    columns = [examples, examples["outcomes"]]
    for holder in columns:
        for name, column in holder.items():
            if isinstance(column, list):
                holder[name] = [column[row] for row in rows]
    data = datasets.load("digits", "test").subset(examples["index"])
    content["dataset"]["sha256"] = data.fingerprint()
    recount(content)


def drop_adversarials(root: Path) -> None:
    """An evidence file that holds none."""
    save_no_adversarials(root / NAME / "entries" / ENTRY / "deltas.safetensors")


def test_the_entry_is_sound_and_ranked(root: Path) -> None:
    forge(root, lambda content: None)
    assert reason(root) is None
    assert standing(root) == (1, "standard", "")


def test_no_attack_called_standard(root: Path) -> None:
    def change(content: Content) -> None:
        content["attacks"] = []
        examples = content["examples"]
        examples["outcomes"] = {}
        examples["verdict"] = [
            "robust" if a == b else "misclassified"
            for a, b in zip(
                examples["label"], examples["clean_prediction"], strict=True
            )
        ]
        recount(content)

    drop_adversarials(root)
    forge(root, change)
    assert "is apgd-ce, apgd-t, fab-t, square, not no attack" in str(reason(root))
    assert standing(root)[:2] == (0, "custom")


def test_only_the_robust_images(root: Path) -> None:
    def change(content: Content) -> None:
        verdict = content["examples"]["verdict"]
        rows_of(content, [at for at, found in enumerate(verdict) if found == "robust"])
        assert content["robust"]["value"] == 1.0

    drop_adversarials(root)
    forge(root, change)
    assert reason(root) is None  # each of its sentences is true
    assert standing(root) == (0, "standard", SELECTED)


def test_one_robust_image_many_times(root: Path) -> None:
    def change(content: Content) -> None:
        row = content["examples"]["verdict"].index("robust")
        rows_of(content, [row] * 500)

    drop_adversarials(root)
    forge(root, change)
    assert reason(root) == "an image is listed twice"
    assert standing(root) == (0, "standard", SELECTED)


def test_clean_predictions_called_undecided(root: Path) -> None:
    def change(content: Content) -> None:
        examples = content["examples"]
        rows = [at for at, v in enumerate(examples["verdict"]) if v == "misclassified"]
        rows = rows or [examples["verdict"].index("robust")]
        for row in rows:
            examples["clean_prediction"][row] = -1
            examples["verdict"][row] = "undecided"
            for column in examples["outcomes"].values():
                column[row] = "skipped"
        recount(content)

    forge(root, change)
    assert "clean predictions differ" in str(reason(root))


def _engine(content: Content) -> None:
    content["engine"] = "reference"


def _full(content: Content) -> None:
    content["battery"] = "full"


def _plus(content: Content) -> None:
    content["battery"] = "plus"


def _one_step(content: Content) -> None:
    for run in content["attacks"]:
        run["parameters"] = {"n_iter": 1}


def _fewer_steps(content: Content) -> None:
    content["attacks"][3]["parameters"]["steps"] = 50


def _another_order(content: Content) -> None:
    content["attacks"].reverse()
    recount(content)


def _another_program(content: Content) -> None:
    content["attacks"][0]["engine"] = "somebody 1.0"


def _not_attacked(content: Content) -> None:
    """The last attack spared the images that held."""
    column = content["examples"]["outcomes"]["square"]
    column[:] = ["skipped" if found == "held" else found for found in column]
    recount(content)


@pytest.mark.parametrize(
    "change",
    [
        _engine,
        _full,
        _plus,
        _one_step,
        _fewer_steps,
        _another_order,
        _another_program,
        _not_attacked,
    ],
)
def test_other_attacks_than_the_battery_has(
    root: Path, change: Callable[[Content], None]
) -> None:
    forge(root, change)
    assert reason(root) is not None
    rank, battery, _ = standing(root)
    assert (rank, battery) == (0, "custom")


def test_few_labels_that_were_many(root: Path) -> None:
    def change(content: Content) -> None:
        content["probe"]["labels"] = "1%"

    forge(root, change)
    assert "fitted on (1% labels): stated 1437, recomputed 14" in str(reason(root))


@pytest.mark.parametrize("train", ["nowhere/train", "imagefolder:mine/train", "/"])
def test_few_labels_of_images_that_nobody_has(root: Path, train: str) -> None:
    """The row would stand in another ranking, by the publisher's word alone."""

    def change(content: Content) -> None:
        content["probe"] |= {"labels": "1%", "train": train, "train_n": 14}

    forge(root, change)
    source = FolderSource(root)
    found = audit(source, plan(source, REFERENCE)[0], data_dir=None)
    assert not found.holds
    assert found.unchecked
    assert "'1%' labels decides what it is ranked with" in str(found.reason)


def test_labels_of_another_spelling_do_not_make_a_ranking(root: Path) -> None:
    def change(content: Content) -> None:
        content["probe"]["labels"] = "100%"

    forge(root, change)
    assert reason(root) is not None


@pytest.mark.parametrize("name", ["none,standard", "standard,", " standard"])
def test_another_spelling_of_a_battery_is_no_ranking(root: Path, name: str) -> None:
    def change(content: Content) -> None:
        content["battery"] = name

    forge(root, change)
    assert standing(root)[:2] == (0, "custom")


def test_another_spelling_of_a_protocol(root: Path) -> None:
    def change(content: Content) -> None:
        content["probe"]["protocol"] = "SLF2"

    place = root / NAME / "entries" / ENTRY / "entry.json"
    place.write_text(place.read_text().replace('"slf"', '"slf2"'))
    forge(root, change)
    assert "there is no protocol 'SLF2'" in str(reason(root))


def test_a_ball_that_looks_the_same_is_ranked_with_the_others(root: Path) -> None:
    """No ranking of one beside theirs, under the same title."""
    other = root / "other"
    shutil.copytree(root / NAME, other)
    for file in (other / "card.json", other / "entries" / ENTRY / "entry.json"):
        file.write_text(file.read_text().replace(NAME, "other"))

    def change(content: Content) -> None:
        threat = ThreatModel(norm="Linf", eps=0.10000004)
        content["threat"] = threat.model_dump()
        content["evidence"]["tolerance"] = threat.tolerance((1, 8, 8))

    forge(root, change)
    assert reason(root) is None
    board = build(FolderSource(root))
    assert [(row.rank, row.last) for row in board.rows] == [(1, 2), (1, 2)]


def test_a_head_that_leaves_everything_open(root: Path) -> None:
    """Logits that are all equal: each label would do as "the" prediction."""

    def change(content: Content) -> None:
        examples = content["examples"]
        examples["clean_prediction"] = list(examples["label"])
        n = len(examples["label"])
        examples["verdict"] = ["robust"] * n
        for column in examples["outcomes"].values():
            column[:] = ["held"] * n
        head = load_file(root / NAME / "entries" / ENTRY / "head.safetensors")
        zero = {name: torch.zeros_like(tensor) for name, tensor in head.items()}
        save_file(zero, root / NAME / "entries" / ENTRY / "head.safetensors")
        source = FolderSource(root)
        encoder = load_encoder_by_name(NAME, source)
        linear = nn.Linear(encoder.dim, 10)
        linear.load_state_dict(zero)
        classifier = Classifier(encoder, linear, classes=10, shape=(1, 8, 8))
        content["model"]["weights_sha256"] = fingerprint(classifier)
        recount(content)

    drop_adversarials(root)
    forge(root, change)
    assert "clean predictions differ" in str(reason(root))


@pytest.mark.parametrize("eps", [0.05, 0.099])
def test_a_smaller_ball(root: Path, eps: float) -> None:
    def change(content: Content) -> None:
        threat = ThreatModel(norm="Linf", eps=eps)
        content["threat"] = threat.model_dump()
        content["evidence"]["tolerance"] = threat.tolerance((1, 8, 8))

    forge(root, change)
    assert "does not count" in str(reason(root))
