"""The re-attack tells what no forward pass can: whether attacks were run."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from forging import rehash, save_no_adversarials
from scipy.stats import binom
from whole import read_whole, write_whole
from zoo_collection import ENTRY, Evaluated

from robrep_eval import evaluate
from robrep_eval.run.audit import attack_again
from zoo.batteries import members
from zoo.board.leaderboard import build
from zoo.collection.entries import read_entry
from zoo.collection.reattack import (
    GROUP,
    STRONG,
    Attacked,
    Sampled,
    claims_strong,
    draw,
    find_attack,
    reattack,
)
from zoo.collection.sources import FolderSource
from zoo.commands.cli import cli
from zoo.commands.shell import run
from zoo.errors import UserError
from zoo.records import Proportion, Verdict

ROOT = Path(__file__).parents[3]
PLACE = f"tiny-digits/entries/{ENTRY}"
Ran = tuple[int, str, str]


def install(folder: Path, value: str) -> None:
    """What installing a package with such an entry point leaves."""
    place = folder / "some_audit-1.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: some-audit\n")
    (place / "entry_points.txt").write_text(f"[{GROUP}]\nstandard = {value}\n")


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point that robrep declares, as installing robrep leaves it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (value,) = project["entry-points"][GROUP].values()
    install(tmp_path / "installed", value)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Runs the command as its entry point does."""

    def call(*args: object) -> Ran:
        monkeypatch.setattr("sys.argv", ["robrep-zoo", *map(str, args)])
        with pytest.raises(SystemExit) as left:
            run(cli, "robrep-zoo")
        out, err = capsys.readouterr()
        return int(str(left.value.code or 0)), out, err

    return call


def pretend(root: Path) -> None:
    """`standard` with every attack said to have found nothing: none was run."""
    place = root / PLACE
    content: dict[str, Any] = read_whole(place)
    examples = content["examples"]
    pairs = zip(examples["label"], examples["clean_prediction"], strict=True)
    correct = [label == guess for label, guess in pairs]
    held = Proportion.of(sum(correct), len(correct)).model_dump()
    content |= {"battery": "standard", "robust": held}
    content["per_class"]["robust"] = content["per_class"]["clean"]
    examples["verdict"] = ["robust" if ok else "misclassified" for ok in correct]
    names = [member.name for member in members("standard", "robrep", "Linf") or []]
    outcomes = ["held" if ok else "skipped" for ok in correct]
    examples["outcomes"] = {name: list(outcomes) for name in names}
    version = content["provenance"]["robrep"]
    content["attacks"] = [
        {
            "name": member.name,
            "engine": f"{member.code} {version}",
            "sequence": True,
            "parameters": member.parameters,
            "attempted": sum(correct),
            "fooled": 0,
            "refused": 0,
            "undecided": 0,
            "robust": held,
            "seconds": 1.0,
            "notes": [],
        }
        for member in members("standard", "robrep", "Linf") or []
    ]
    content["evidence"]["count"] = 0
    write_whole(place, content)
    save_no_adversarials(place / "deltas.safetensors")
    rehash(root, place)


@pytest.mark.slow
def test_attacks_that_were_never_run_are_found_out(
    declared: None, command: Callable[..., Ran], evaluated: Evaluated, tmp_path: Path
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    pretend(root)
    name = f"tiny-digits/{ENTRY}"
    source = ["--source", root]
    code, out, _ = command("verify", name, *source)
    assert code == 0  # nothing that forward passes can tell is wrong with it
    assert "not proven: that an attack which fooled nothing was really run" in out
    (row,) = build(FolderSource(root)).rows
    assert (row.rank, row.battery) == (1, "standard")
    again = ["verify", name, *source, "--attack", 25, "--seed", 3]
    code, out, err = command(*again)
    assert code == 1
    assert "of 25 images fell" in " ".join(out.split())
    assert "1 of 1 do not hold" in err
    code, out, _ = command(*again, "--json")
    (found,) = json.loads(out)
    assert (code, found["holds"]) == (1, False)
    told = found["reattacked"]
    assert (told["seed"], told["attacked"]) == (3, 25)
    fallen = len(told["fallen"])
    assert fallen > 5
    assert told["low"] >= fallen
    assert set(told["fallen"].values()) <= STRONG


@pytest.mark.slow
def test_a_weaker_battery_is_told_and_fails_only_if_strict(
    declared: None, command: Callable[..., Ran], evaluated: Evaluated
) -> None:
    name = ["tiny-digits", "--source", evaluated.published, "--attack", 100]
    code, out, err = command("verify", *name, "--seed", 1)
    assert code == 0, err
    robust = evaluated.result.robust.k
    assert f"of {robust} images fell, drawn from {robust}" in " ".join(out.split())
    fell = int(out.split("re-attack: ")[1].split()[0])
    code, _, _ = command("verify", *name, "--seed", 1, "--strict")
    assert code == (1 if fell else 0)


def test_the_seed_chooses_and_a_fresh_one_is_told(
    declared: None, command: Callable[..., Ran], evaluated: Evaluated
) -> None:
    result = evaluated.result
    robust = [v is Verdict.ROBUST for v in result.examples.verdict]
    drawn = [draw(result, 8, seed) for seed in range(20)]
    assert len(set(map(tuple, drawn))) > 10
    assert all(len(set(rows)) == 8 and all(robust[r] for r in rows) for rows in drawn)
    assert draw(result, 8, 3) == drawn[3]
    assert len(draw(result, 10_000, 0)) == sum(robust)
    args = ["tiny-digits", "--source", evaluated.published, "--attack", 1]
    seeds = {
        command("verify", *args)[1].split("(seed ")[1].split(")")[0] for _ in range(2)
    }
    assert len(seeds) == 2


def test_nothing_is_drawn_where_nothing_is_said_to_be_robust(
    evaluated: Evaluated,
) -> None:
    source = FolderSource(evaluated.published)
    published = read_entry(source, source.find("tiny-digits"), ENTRY)
    images = evaluated.result.robust.n
    verdicts = [Verdict.MISCLASSIFIED] * images
    examples = evaluated.result.examples.model_copy(update={"verdict": verdicts})
    none = evaluated.result.model_copy(
        update={"robust": Proportion.of(0, images), "examples": examples}
    )

    def attack(*_: object, **__: object) -> Attacked:
        raise AssertionError("there is nothing to attack")

    found = reattack(source, replace(published, result=none), 50, seed=1, attack=attack)
    assert (found.attacked, found.low, found.high) == (0, 0, 0)
    assert "0 of 0 images fell" in str(found)
    assert "robust accuracy is 0.0% to 0.0%" in str(found)
    assert Sampled.from_json(json.loads(json.dumps(asdict(found)))) == found


def test_options_that_belong_together(
    command: Callable[..., Ran], evaluated: Evaluated
) -> None:
    source = ["--source", evaluated.published]
    for extra in (["--seed", 1], ["--strict"]):
        code, _, err = command("verify", "tiny-digits", *source, *extra)
        assert (code, "only beside --attack N" in err) == (2, True)
    assert command("verify", "tiny-digits", *source, "--attack", 0)[0] == 2


def test_the_attack_is_found_where_it_is_declared(declared: None) -> None:
    assert find_attack() is attack_again


def test_no_package_offers_an_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UserError, match=f"an entry point {GROUP}, found none"):
        find_attack()


def test_a_package_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "no_such_module_here:attack")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"no_such_module_here.*cannot be imported"):
        find_attack()


def sampled(fell: int, attacked: int, *, strong: bool = True) -> Sampled:
    return Sampled(
        seed=0,
        attacked=attacked,
        robust=1000,
        fallen=dict.fromkeys(range(fell), "square"),
        low=20,
        high=900,
        images=2000,
        strong=strong,
    )


@pytest.mark.parametrize("attacked", [1, 2, 7, 12, 13, 30, 49, 50, 400, 1000])
def test_a_sample_refutes_what_a_chance_of_one_in_fifty_does_not_explain(
    attacked: int,
) -> None:
    """By the tail of the binomial distribution, however many images there are."""
    for fell in range(min(attacked, 40) + 1):
        explained = fell < 2 or binom.sf(fell - 1, attacked, 0.02) >= 0.025
        assert sampled(fell, attacked).refuted != explained
        assert not sampled(fell, attacked, strong=False).refuted


def test_a_sample_in_words() -> None:
    assert "robust accuracy is 5.0% to 49.0% by this attack" in str(sampled(0, 50))
    assert not sampled(0, 0).refuted


def test_an_audited_battery_is_no_stronger_than_what_was_on_all_images() -> None:
    """Else an image of those that `standard` never saw would refute the entry."""
    strong = [strong_of(name) for name in ("fast", "fast,audit:8", "standard")]
    assert strong == [False, False, True]


def strong_of(battery: str) -> bool:
    result = evaluate(
        "zoo:tarrl-digits",
        "digits",
        attacks=battery,
        limit=8,
        health="none",
        output=None,
    )
    return claims_strong(result)
