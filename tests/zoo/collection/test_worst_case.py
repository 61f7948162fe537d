"""What was found beyond an entry's battery stands beside it, and is checked like it.

One file in spite of its length: all of it is of one published entry and one run.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from zoo_collection import Evaluated

from robrep_eval import evaluate
from robrep_eval.run.audit import attack_again
from zoo.board.leaderboard import build
from zoo.board.text import WORST, markdown
from zoo.collection.audit import Again, Audit, audit, plan
from zoo.collection.entries import read_entry
from zoo.collection.gathering import Further
from zoo.collection.index import INDEX, FileRecord, scan
from zoo.collection.publish import Publication, publish
from zoo.collection.reattack import reattack
from zoo.collection.sources import FolderSource
from zoo.collection.strengthen import strengthen
from zoo.commands.cli import cli
from zoo.commands.shell import run
from zoo.errors import UserError, VerificationError
from zoo.files import sha256_file
from zoo.records import Proportion, Result, Verdict, write_record

NAME = "tiny-digits"
ENTRY = "digits-linf-0.02-slf-v2-none"
REFERENCE = f"{NAME}/{ENTRY}"
PLACE = f"{NAME}/entries/{ENTRY}"
KINDS = ("json", "safetensors")


def measured(attacks: str, output: Path, *, limit: int) -> Result:
    """A run of the published encoder."""
    return evaluate(
        f"zoo:{NAME}",
        eps=0.02,
        attacks=attacks,
        limit=limit,
        output=output,
        measure=(),
    )


@pytest.fixture(scope="module")
def weak(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An entry of the same images that nothing attacked."""
    root = tmp_path_factory.mktemp("weak")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBREP_ZOO", str(evaluated.plain))
        measured("none", root / "run", limit=60)
        publish(Publication(runs=[root / "run"]), str(root / "zoo"))
    return root / "zoo"


@pytest.fixture(scope="module")
def known(
    weak: Path, evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same, with what the attacks of another run found."""
    root = tmp_path_factory.mktemp("known") / "zoo"
    shutil.copytree(weak, root)
    strengthen(root, REFERENCE, [evaluated.run])
    return root


@pytest.fixture
def forged(known: Path, tmp_path: Path) -> Path:
    """A copy to be tampered with."""
    return shutil.copytree(known, tmp_path / "zoo")


def audited(root: Path) -> Audit:
    source = FolderSource(root)
    return audit(source, plan(source, REFERENCE)[0], data_dir=None)


def everything(root: Path) -> list[Audit]:
    """Verdicts on the encoder and its entry."""
    source = FolderSource(root)
    return [audit(source, item, data_dir=None) for item in plan(source, NAME)]


def alter(root: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Changes record and perturbations, and makes all checksums agree again."""
    place = root / PLACE
    [path], [deltas] = (list(place.glob(f"worst*.{end}")) for end in KINDS)
    record = json.loads(path.read_text())
    tensors = load_file(deltas)
    change(record, tensors)
    save_file(tensors, deltas, {"version": "1"})
    record["deltas"] = FileRecord.of(place, deltas.name).model_dump()
    path.write_text(json.dumps(record))
    write_record(root / INDEX, scan(root))


def test_all_that_the_other_run_fooled_falls(known: Path, evaluated: Evaluated) -> None:
    source = FolderSource(known)
    entry = read_entry(source, source.find(NAME), ENTRY)
    theirs = evaluated.result
    assert entry.worst is not None
    assert entry.worst.robust == theirs.robust
    assert entry.worst.batteries == [theirs.battery]
    rows = zip(theirs.examples.index, theirs.examples.verdict, strict=True)
    assert entry.worst.fallen == [at for at, v in rows if v is Verdict.FOOLED]
    assert entry.result.robust == entry.result.clean  # the headline stays


def test_a_battery_that_saw_few_of_the_images_is_said_to_have(
    forged: Path, evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else ten images of it would be told as all that the entry has."""
    monkeypatch.setenv("ROBREP_ZOO", str(evaluated.plain))
    few = measured("fgsm", tmp_path / "few", limit=10)
    worst = strengthen(forged, REFERENCE, [tmp_path / "few"])
    tried = sum(v is not Verdict.MISCLASSIFIED for v in few.examples.verdict)
    clean = evaluated.result.clean.k
    assert worst.tried == [clean, tried]
    assert worst.by == ["fgsm,pgd", f"fgsm (on {tried} of {clean})"]
    assert f"fgsm (on {tried} of {clean})" in str(worst)
    assert audited(forged).holds
    (row,) = build(FolderSource(forged)).rows
    assert row.worst_by == worst.by
    again = strengthen(forged, REFERENCE, [evaluated.run])
    assert again == worst


def test_an_attack_now_adds_what_verify_finds(weak: Path, tmp_path: Path) -> None:
    """Also where only those known to fall are attacked: draws belong to an image."""
    again = Again(count=12, seed=3, attack=attack_again)
    source = FolderSource(weak)
    entry = read_entry(source, source.find(NAME), ENTRY)
    told = reattack(source, entry, 12, seed=3, attack=attack_again).fallen
    assert 2 < len(told) <= 12
    few = sorted(told)[:2]
    for known, expected in ((None, sorted(told)), (few, few)):
        root = shutil.copytree(weak, tmp_path / str(len(expected)))
        further = Further(again=again, known=known)
        worst = strengthen(root, REFERENCE, [], further=further)
        assert (worst.batteries, worst.tried) == (["standard"], [12])
        assert worst.fallen == expected
        assert audited(root).holds
        assert strengthen(root, REFERENCE, [], further=further) == worst


def test_an_entry_on_images_of_ones_own_has_a_worst_case(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs say where the images are; the entry never does."""
    monkeypatch.setenv("ROBREP_ZOO", str(evaluated.plain))
    noise = np.random.default_rng(0)
    for split, label in itertools.product(("train", "test"), range(2)):
        place = tmp_path / "mine" / split / str(label)
        place.mkdir(parents=True)
        for at in range(8):
            pixels = noise.integers(0, 60, (8, 8)) + 80 * label
            Image.fromarray(pixels.astype("uint8")).save(place / f"{at}.png")
    for attacks in ("none", "fgsm"):
        found = evaluate(
            f"zoo:{NAME}",
            f"imagefolder:{tmp_path / 'mine'}",
            eps=0.3,
            attacks=attacks,
            output=tmp_path / attacks,
            measure=(),
        )
    publish(Publication(runs=[tmp_path / "none"]), str(tmp_path / "zoo"))
    (row,) = build(FolderSource(tmp_path / "zoo")).rows
    worst = strengthen(tmp_path / "zoo", row.reference, [tmp_path / "fgsm"])
    assert worst.robust == found.robust
    assert found.robust.k < found.clean.k


@pytest.mark.parametrize("tried", [[0], [61], [], [5, 5]])
def test_where_it_was_tried_must_be_possible(forged: Path, tried: list[int]) -> None:
    alter(forged, lambda record, _: record.update(tried=tried))
    assert not audited(forged).holds
    board = build(FolderSource(forged))
    assert len(board.rows) + len(board.left_out) == 1


def test_attacks_by_several_seeds_add_up(weak: Path, tmp_path: Path) -> None:
    """However many fall by all of them, none was tried on fewer."""
    root, fallen = shutil.copytree(weak, tmp_path / "zoo"), 0
    for seed in range(4):
        again = Again(count=8, seed=seed, attack=attack_again)
        worst = strengthen(root, REFERENCE, [], further=Further(again=again))
        assert worst.batteries == ["standard"]
        assert worst.tried == [max(8, len(worst.fallen))]
        assert len(worst.fallen) >= fallen
        fallen = len(worst.fallen)
    assert fallen > 8
    assert audited(root).holds


def test_nothing_to_attack_is_said(weak: Path, tmp_path: Path) -> None:
    root = shutil.copytree(weak, tmp_path / "zoo")
    again = Again(count=8, seed=0, attack=attack_again)
    with pytest.raises(UserError, match="known to fall was drawn"):
        strengthen(root, REFERENCE, [], further=Further(again=again, known=set()))
    assert not list((root / PLACE).glob("worst*"))


@pytest.mark.parametrize("after", range(9))
def test_a_killed_call_leaves_the_entry_as_it_was_and_can_be_repeated(
    after: int,
    forged: Path,
    evaluated: Evaluated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed at any of its renames, and at those of the second worst case too."""
    monkeypatch.setenv("ROBREP_ZOO", str(evaluated.plain))
    measured("apgd-ce", tmp_path / "more", limit=60)
    script = f"""
import os, sys
from pathlib import Path
from zoo.collection.strengthen import strengthen
renamed, left = Path.replace, {after}
def replace(self, target):
    global left
    if Path({str(forged)!r}) in Path(target).parents:
        if not left:
            os.kill(os.getpid(), 9)
        left -= 1
    return renamed(self, target)
Path.replace = replace
strengthen(Path({str(forged)!r}), {REFERENCE!r}, [Path({str(tmp_path / "more")!r})])
"""
    done = subprocess.run([sys.executable, "-c", script], env=dict(os.environ))
    assert done.returncode in (-9, 0)
    if done.returncode:
        assert audited(forged).holds
        before = sorted(forged.rglob("*"))
        strengthen(forged, REFERENCE, [evaluated.run])  # another run than that
        assert len(sorted(forged.rglob("*"))) <= len(before)
    worst = strengthen(forged, REFERENCE, [tmp_path / "more"])
    assert len(worst.batteries) == 2
    assert all(verdict.holds for verdict in everything(forged))
    for end in KINDS:
        assert len(list((forged / PLACE).glob(f"worst*.{end}"))) == 1
    assert not list(forged.rglob(".*.*.????????"))


def test_records_of_before_do_not_say_where(forged: Path) -> None:
    alter(forged, lambda record, _: record.pop("tried"))
    assert audited(forged).holds
    (row,) = build(FolderSource(forged)).rows
    assert row.worst_by == ["fgsm,pgd"]


def test_the_entry_stays_as_it_was(weak: Path, known: Path) -> None:
    before = {p: sha256_file(p) for p in sorted((weak / PLACE).iterdir())}
    after = {p.name: sha256_file(p) for p in (known / PLACE).iterdir()}
    assert {p.name: found for p, found in before.items()}.items() <= after.items()
    new = sorted(
        after.keys() - {p.name for p in before},
        key=lambda name: name.rpartition(".")[2],
    )
    assert [re.sub("-[0-9a-f]{8}", "", name) for name in new] == [
        *("worst.json", "worst.safetensors"),
    ]
    found = scan(known).encoders[0].files, FolderSource(known).index.encoders[0].files
    assert found[0] == found[1]
    serials = [FolderSource(root).index.serial for root in (weak, known)]
    assert serials[1] == serials[0] + 1


def test_verify_checks_it(known: Path, weak: Path) -> None:
    verdict = audited(known)
    assert verdict.holds, verdict.reason
    told = dict(verdict.findings)["worst case known"]
    assert "more fell, tried fgsm,pgd)" in told
    assert "worst case known" not in dict(audited(weak).findings)


def test_it_is_shown_and_does_not_rank(known: Path, weak: Path) -> None:
    (row,) = build(FolderSource(known)).rows
    assert row.worst is not None
    assert row.worst < row.robust
    text = markdown(build(FolderSource(known)))
    assert WORST in text
    assert f"| {100 * row.worst.value:.1f} |" in text
    assert WORST not in markdown(build(FolderSource(weak)))
    readme = (known / NAME / "README.md").read_text()
    assert f"Worst case known of {ENTRY}: {row.worst}" in readme


def test_a_second_time_changes_nothing(forged: Path, evaluated: Evaluated) -> None:
    before = (forged / INDEX).read_bytes()
    strengthen(forged, REFERENCE, [evaluated.run])
    assert (forged / INDEX).read_bytes() == before


def test_publishing_the_entry_again_keeps_it(forged: Path, weak: Path) -> None:
    request = Publication(runs=[weak.parent / "run"], source=str(weak))
    assert publish(request, str(forged)).known == (ENTRY,)
    assert audited(forged).holds
    assert build(FolderSource(forged)).rows[0].worst


def _clean(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["scale"] = torch.zeros_like(tensors["scale"])


def _beyond(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["scale"] = 1.1 * tensors["scale"]


def _twice(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["positions"] = tensors["positions"][:1].expand(len(tensors["code"])).clone()


def _one_more(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    k, n = record["robust"]["k"] - 1, record["robust"]["n"]
    record["robust"] = Proportion.of(k, n).model_dump()


def _no_battery(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["attack"] = tensors["attack"] + 1


def _before_the_first(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    tensors["attack"] = tensors["attack"].long() - 1 - len(record["batteries"])


def _another_entry(record: dict[str, Any], tensors: dict[str, Any]) -> None:
    record["entry"] = "another"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_clean, "does not count: held"),
        (_beyond, "does not count: refused"),
        (_twice, "fooled twice"),
        (_one_more, "robust accuracy"),
        (_no_battery, "not listed"),
        (_before_the_first, "not listed"),
        (_another_entry, "worst case of tiny-digits/another"),
    ],
)
def test_a_forged_one_is_refused(
    forged: Path, change: Callable[..., None], reason: str
) -> None:
    alter(forged, change)
    verdict = audited(forged)
    assert not verdict.holds
    assert reason in str(verdict.reason)


def test_an_image_that_was_never_robust_is_refused(forged: Path) -> None:
    source = FolderSource(forged)
    result = read_entry(source, source.find(NAME), ENTRY).result
    row = result.examples.verdict.index(Verdict.MISCLASSIFIED)

    def change(record: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors["positions"][0] = row

    alter(forged, change)
    assert "does not call robust" in str(audited(forged).reason)


def test_a_run_under_another_threat_is_refused(
    forged: Path, evaluated: Evaluated
) -> None:
    before = (forged / INDEX).read_bytes()
    with pytest.raises(UserError, match="another threat model than the entry"):
        strengthen(forged, REFERENCE, [evaluated.other_run])
    assert (forged / INDEX).read_bytes() == before


def test_the_command(
    weak: Path,
    evaluated: Evaluated,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = shutil.copytree(weak, tmp_path / "zoo")
    words = ["worst-case", REFERENCE, str(evaluated.run), "--to", str(root)]
    monkeypatch.setattr("sys.argv", ["robrep-zoo", *words])
    with pytest.raises(SystemExit) as left:
        run(cli, "robrep-zoo")
    assert not left.value.code
    assert f"{REFERENCE}: worst case known" in capsys.readouterr().out
    assert audited(root).holds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a RUN, or --attack N"),
        (["--seed", "1"], "--seed: only beside --attack N"),
        (["--attack", "0"], "0 is not in the range"),
    ],
)
def test_words_that_the_command_does_not_take(
    words: list[str],
    message: str,
    weak: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = ["robrep-zoo", "worst-case", REFERENCE, "--to", str(weak), *words]
    monkeypatch.setattr("sys.argv", call)
    with pytest.raises(SystemExit) as left:
        run(cli, "robrep-zoo")
    assert left.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_runs_that_add_nothing_are_refused(
    weak: Path, evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBREP_ZOO", str(evaluated.plain))
    root = shutil.copytree(weak, tmp_path / "zoo")
    measured("none", tmp_path / "none", limit=20)
    with pytest.raises(UserError, match="attacked nothing"):
        strengthen(root, REFERENCE, [tmp_path / "none"])
    (root / INDEX).rename(tmp_path / "index.json")
    with pytest.raises(UserError, match=r"has no index\.json"):
        strengthen(root, REFERENCE, [evaluated.run])


def _moved(content: dict[str, Any]) -> None:
    content["dataset"]["n"] = 2000


def _shaped(content: dict[str, Any]) -> None:
    content["dataset"]["shape"] = [3, 8, 8]


def _called(content: dict[str, Any]) -> None:
    content["battery"] = "standard"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_moved, "images of the run"),
        (_shaped, "their shape"),
        (_called, "battery 'standard'"),
    ],
)
def test_a_run_that_contradicts_itself_is_refused(
    change: Callable[[dict[str, Any]], None],
    message: str,
    weak: Path,
    evaluated: Evaluated,
    tmp_path: Path,
) -> None:
    root = shutil.copytree(weak, tmp_path / "zoo")
    copy = shutil.copytree(evaluated.run, tmp_path / "run")
    content = json.loads((copy / "result.json").read_text())
    change(content)
    (copy / "result.json").write_text(json.dumps(content))
    with pytest.raises(VerificationError, match=message):
        strengthen(root, REFERENCE, [copy])


def test_a_battery_of_no_known_name_is_custom(
    weak: Path, evaluated: Evaluated, tmp_path: Path
) -> None:
    """What others wrote there is not told in robrep's name."""
    root = shutil.copytree(weak, tmp_path / "zoo")
    copy = shutil.copytree(evaluated.run, tmp_path / "run")
    content = json.loads((copy / "result.json").read_text())
    content["battery"] = "the best of all\nholds  famous/entry (0.1 s)"
    (copy / "result.json").write_text(json.dumps(content))
    assert strengthen(root, REFERENCE, [copy]).batteries == ["custom"]


def test_what_others_wrote_makes_no_line_of_a_verdict(forged: Path) -> None:
    lie = "plus\nholds  famous/entry (0.1 s)"
    alter(forged, lambda record, _: record.update(batteries=[lie]))
    verdict = audited(forged)
    assert verdict.holds
    first, *rest = str(verdict).split("\n")
    assert first.startswith(f"holds  {REFERENCE} ")
    assert all(line.startswith("       ") for line in rest)
