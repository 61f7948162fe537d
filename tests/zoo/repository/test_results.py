"""A repository of results: laid out, checked, and what a change adds.

One file in spite of its length: nearly all tests change the same small repository.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from forging import reseal
from zoo_collection import ENTRY, Evaluated, card_of, tiny_encoder

from robrep_eval import evaluate
from zoo.board.leaderboard import Board, build
from zoo.collection.audit import audit, plan
from zoo.collection.entries import entry_name
from zoo.collection.opening import open_source
from zoo.collection.publish import Publication
from zoo.collection.sources_embedded import EMBEDDED_FOLDER
from zoo.collection.sources_results import RevisionSource, revision_of
from zoo.commands.cli import cli
from zoo.commands.shell import run
from zoo.encoder import save_encoder
from zoo.errors import UserError
from zoo.files import read_json
from zoo.records import Proportion, write_record
from zoo.repository.adding import add, start
from zoo.repository.checking import Change, check
from zoo.repository.comment import comment

NAME = "tiny-digits"


@pytest.fixture(scope="module")
def laid_out(
    evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A repository with one result, and the revision's folder in it."""
    root = tmp_path_factory.mktemp("results")
    start(root)
    done = add(Publication(runs=[evaluated.run], source=str(evaluated.plain)), root)
    return root, done.folder


@pytest.fixture
def copied(laid_out: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(laid_out[0], tmp_path / "results"))


def revision(root: Path) -> Path:
    return next((root / NAME).iterdir())


def test_lies_at_model_revision_task(
    laid_out: tuple[Path, Path], evaluated: Evaluated
) -> None:
    root, folder = laid_out
    card = json.loads((folder / "card.json").read_text())
    assert folder == root / NAME / card["sha256"][:12]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("card.json", ENTRY, "model.safetensors"),
    ]
    assert entry_name(evaluated.result) == ENTRY
    again = add(Publication(runs=[evaluated.run], source=str(evaluated.plain)), root)
    assert (again.added, again.known) == ((), (ENTRY,))


def test_is_a_zoo_like_any_other(
    laid_out: tuple[Path, Path], evaluated: Evaluated
) -> None:
    source = open_source(laid_out[0])
    assert [row.reference for row in build(source).rows] == [f"{NAME}/{ENTRY}"]
    assert build(source).rows[0].robust == evaluated.result.robust
    found = [audit(source, item, data_dir=None) for item in plan(source, None)]
    assert [verdict.reason for verdict in found] == [None, None]
    assert len(found) == 2


def test_start_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("ours")
    written = {path.relative_to(tmp_path).as_posix() for path in start(tmp_path)}
    assert written == {
        *(".github/workflows/verify.yml", ".github/workflows/comment.yml"),
        "robrep-results.json",
    }
    assert (tmp_path / "README.md").read_text() == "ours"
    assert start(tmp_path) == []


def test_no_repository_is_refused(evaluated: Evaluated, tmp_path: Path) -> None:
    for call in (
        lambda: check(tmp_path),
        lambda: add(Publication(runs=[evaluated.run]), tmp_path),
    ):
        with pytest.raises(UserError, match="robrep-zoo results init"):
            call()


def test_only_what_is_new_is_verified(
    copied: Path, laid_out: tuple[Path, Path], evaluated: Evaluated, tmp_path: Path
) -> None:
    assert check(copied, laid_out[0]) == Change()
    whole = check(copied)
    assert [n.verdict.item for n in whole.new] == [NAME, f"{NAME}/{ENTRY}"]
    request = Publication(runs=[evaluated.other_run], source=str(evaluated.plain))
    added = add(request, copied)
    change = check(copied, laid_out[0])
    assert not change.faults
    assert [new.folder.name for new in change.new] == list(added.added)
    assert all(new.verdict.holds for new in change.new)
    text = comment(change, build(open_source(copied)))
    assert text.startswith("### 1 new result holds\n")
    assert f"{100 * change.new[0].published.result.robust.value:.1f}" in text  # type: ignore[union-attr]


def test_another_revision_is_shown_beside_the_one_before(
    copied: Path,
    laid_out: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = tiny_encoder(7)
    weights = tmp_path / "plain" / NAME / "model.safetensors"
    save_encoder(encoder, weights)
    write_record(weights.with_name("card.json"), card_of(encoder, NAME, weights))
    monkeypatch.setenv("ROBREP_ZOO", str(tmp_path / "plain"))
    options = {"eps": 0.02, "attacks": "fgsm,pgd", "limit": 60, "measure": ()}
    result = evaluate(f"zoo:{NAME}", output=tmp_path / "run", **options)  # type: ignore[arg-type]
    add(Publication(runs=[tmp_path / "run"]), copied)
    change = check(copied, laid_out[0])
    (task,) = [new for new in change.new if new.published]
    assert task.before is not None
    before = task.before.result.robust
    source = open_source(copied)
    assert [row.robust for row in build(source).rows] == [result.robust]
    text = comment(change, build(source))
    difference = f"{100 * (result.robust.value - before.value):+.1f}"
    assert f"{100 * before.value:.1f} ({difference})" in text.replace("\\", "")


def _altered(root: Path) -> None:
    path = revision(root) / "card.json"
    path.write_text(path.read_text().replace("a test encoder", "a fine encoder"))


def _lost(root: Path) -> None:
    shutil.rmtree(revision(root) / ENTRY)


def _stranger(root: Path) -> None:
    (revision(root) / ENTRY / "notes.txt").write_text("x")


def _beside(root: Path) -> None:
    (root / NAME / "notes.txt").write_text("x")


def _other_revision(root: Path) -> None:
    revision(root).rename(root / NAME / "0123456789ab")


def _other_model(root: Path) -> None:
    (root / NAME).rename(root / "mine")


def _twice(root: Path) -> None:
    place = revision(root) / "again"
    shutil.copytree(revision(root) / ENTRY, place)
    entry = json.loads((place / "entry.json").read_text())
    (place / "entry.json").write_text(json.dumps({**entry, "name": "again"}))


def _two_names(root: Path) -> None:
    folder = root / "other" / revision(root).name
    shutil.copytree(revision(root), folder)
    shutil.rmtree(folder / ENTRY)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "name": "other"}))


def _no_weights(root: Path) -> None:
    (revision(root) / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (_altered, "card.json was published and is changed"),
        (_lost, "was published and is gone"),
        (_stranger, "notes.txt does not belong there"),
        (_beside, "a model has revisions alone"),
        (_other_revision, "holds what belongs to tiny-digits/"),
        (_other_model, "holds what belongs to tiny-digits/"),
        (_twice, "answers the same question"),
        (_two_names, "holds the weights of"),
        (_no_weights, "has neither the weights nor a weights.json"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_out_of_place_is_named(
    copied: Path,
    laid_out: tuple[Path, Path],
    alter: Callable[[Path], None],
    message: str,
) -> None:
    alter(copied)
    found = check(copied, laid_out[0])
    assert any(message in fault for fault in found.faults), found.faults
    assert not any(str(copied) in fault for fault in found.faults)
    assert "out of place" in comment(found, _empty())


def _link(path: Path, outside: Path) -> None:
    shutil.move(path, outside)
    path.symlink_to(outside)


def _pipe(path: Path, outside: Path) -> None:
    shutil.move(path, outside)
    os.mkfifo(path)


@pytest.mark.parametrize("replace_by", [_link, _pipe])
@pytest.mark.parametrize("level", ["model", "revision", "task", "file", "weights"])
def test_nothing_leads_out_of_the_repository(
    copied: Path,
    laid_out: tuple[Path, Path],
    tmp_path: Path,
    level: str,
    replace_by: Callable[[Path, Path], None],
) -> None:
    place = {
        "model": copied / NAME,
        "revision": revision(copied),
        "task": revision(copied) / ENTRY,
        "file": revision(copied) / ENTRY / "result.json",
        "weights": revision(copied) / "model.safetensors",
    }[level]
    name = place.relative_to(copied).as_posix()
    replace_by(place, tmp_path / "outside")
    for base in (None, laid_out[0]):
        found = check(copied, base)
        assert not found.new
        reason = "is a link" if replace_by is _link else "is neither a file nor"
        assert any(f.startswith(f"{name} {reason}") for f in found.faults), found.faults
    if level in ("model", "revision"):  # nor does whoever only reads it follow one
        assert build(open_source(copied)).rows == []
    elif replace_by is _link:
        board = build(open_source(copied))
        assert not board.rows
        assert "is a link" in board.left_out[NAME]


@pytest.mark.parametrize(
    "name",
    [
        "weights.json",
        "notes.txt",
        f"{ENTRY}/columns-01234567.safetensors",
        f"{ENTRY}/classifier.safetensors",
        f"{ENTRY}/.hidden",
        f"{ENTRY}/deeper/notes.txt",
    ],
)
@pytest.mark.parametrize("change", ["added", "changed", "removed"])
def test_a_published_revision_stays_as_it_is(
    copied: Path, tmp_path: Path, name: str, change: str
) -> None:
    base = Path(shutil.copytree(copied, tmp_path / "base"))
    before, after = revision(base) / name, revision(copied) / name
    texts = {before: "old" * (change != "added"), after: "new" * (change != "removed")}
    for path, text in texts.items():
        if text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    said = {
        "added": "is added to what was published",
        "changed": "was published and is changed",
        "removed": "was published and is gone",
    }[change]
    place = after.relative_to(copied).as_posix()
    assert f"{place} {said}" in check(copied, base).faults


def test_two_that_add_at_once_do_not_mix(evaluated: Evaluated, tmp_path: Path) -> None:
    """One of two results of one name is there, whole; the other is refused."""
    root = tmp_path / "results"
    start(root)
    requests = [
        Publication(runs=[run], source=str(evaluated.plain), entry="same")
        for run in (evaluated.run, evaluated.other_run)
    ]
    with ThreadPoolExecutor(2) as both:
        calls = [both.submit(add, request, root) for request in requests]
        errors = [call.exception() for call in calls]
    (refused,) = filter(None, errors)
    assert "holds another result" in str(refused)
    change = check(root)
    assert not change.faults
    assert not change.failed


@pytest.mark.parametrize(
    "date", ["9999-12-31T23:59:59", "9999-12-31T23:59:59-14:00", "2999-01-01T00:00Z"]
)
def test_a_date_to_come_is_named_and_makes_nothing_the_newest(
    copied: Path, laid_out: tuple[Path, Path], date: str
) -> None:
    forged = copied / NAME / ("0" * 12)
    shutil.copytree(revision(copied), forged)
    record = json.loads((forged / ENTRY / "result.json").read_text())
    record["provenance"]["created"] = date
    (forged / ENTRY / "result.json").write_text(json.dumps(record))
    reseal(forged / ENTRY)
    (row,) = build(open_source(copied)).rows
    assert row.created.year < int(date[:4])
    shutil.rmtree(copied / NAME / revision_of(row.card))
    forged.rename(copied / NAME / revision_of(row.card))
    (fault,) = check(copied).faults
    assert fault.endswith(f"{ENTRY} is dated {date[:10]}, which is to come")
    source = open_source(copied)
    (item,) = [item for item in plan(source, None) if item.entry]
    found = audit(source, item, data_dir=None)
    assert ("warning", f"states that it was made on {date[:10]}") in found.findings


def test_a_revision_out_of_sight_is_checked_like_others(
    copied: Path, laid_out: tuple[Path, Path]
) -> None:
    shutil.copytree(revision(copied), copied / NAME / ".newer")
    (fault, *_) = check(copied, laid_out[0]).faults
    assert fault.startswith(f"{NAME}/.newer holds what belongs to {NAME}/")
    assert len(build(open_source(copied)).rows) == 1


def _no_card(root: Path) -> None:
    (revision(root) / "card.json").write_text("{")


@pytest.mark.parametrize(
    ("alter", "name", "reason"),
    [
        (_no_card, NAME, "card.json is not valid JSON"),
        (_no_weights, NAME, "has neither the weights nor a weights.json"),
        (_other_model, "mine", "card.json is the card of 'tiny-digits'"),
    ],
)
def test_a_broken_model_hides_no_other(
    copied: Path, alter: Callable[[Path], None], name: str, reason: str
) -> None:
    embedded(copied, {"schema_version": 1, "source": "embedded", "size": SIZE})
    alter(copied)
    source = open_source(copied)
    assert source.index.names() == ["simclr-digits"]
    assert list(source.left_out) == [name]
    assert reason in source.left_out[name]
    with pytest.raises(UserError, match=re.escape(reason)):
        source.find(name)
    board = build(source)
    assert {row.card.name for row in board.rows} == {"simclr-digits"}
    assert board.left_out == source.left_out


def test_a_result_that_cannot_be_read_hides_no_other_model(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two revisions, whose dates are read; the system's refusal is a stand-in, for
    the superuser gets none."""
    embedded(copied, {"schema_version": 1, "source": "embedded", "size": SIZE})
    second = copied / NAME / ("f" * 12)
    shutil.copytree(revision(copied), second)

    def read(path: Path) -> object:
        if path.is_relative_to(second):
            raise PermissionError(13, "Permission denied", str(path))
        return read_json(path)

    monkeypatch.setattr("zoo.collection.sources_results.read_json", read)
    source = open_source(copied)
    assert source.index.names() == ["simclr-digits", NAME]
    board = build(source)  # the other revision, whose result has a date
    assert f"{NAME}/{ENTRY}" in [row.reference for row in board.rows]


def _empty() -> Board:
    return Board(source="", rows=[])


def test_a_forged_figure_does_not_hold(copied: Path) -> None:
    place = revision(copied) / ENTRY
    record = json.loads((place / "result.json").read_text())
    better = record["robust"]["k"] + 1
    n = record["robust"]["n"]
    record["robust"] = Proportion.of(better, n).model_dump()
    (place / "result.json").write_text(json.dumps(record))
    reseal(place)
    change = check(copied)
    assert [new.folder for new in change.failed] == [place]
    text = comment(change, _empty())
    assert "1 do not hold" in text
    assert "FAILS" in text


def test_images_that_are_not_here_are_told_apart(copied: Path) -> None:
    change = check(copied)
    verdict = replace(change.new[1].verdict, holds=False, unchecked=True, reason="no")
    change = Change(new=[replace(change.new[1], verdict=verdict)])
    assert change.failed == []
    assert "1 not checked" in comment(change, _empty())


def embedded(root: Path, weights: dict[str, object]) -> Path:
    """An embedded entry, laid out by hand, with its weights elsewhere."""
    start(root)
    origin = EMBEDDED_FOLDER / "simclr-digits"
    card = json.loads((origin / "card.json").read_text())
    folder: Path = root / "simclr-digits" / card["sha256"][:12]
    shutil.copytree(origin / "entries", folder)
    shutil.copyfile(origin / "card.json", folder / "card.json")
    (folder / "weights.json").write_text(json.dumps(weights))
    return folder


SIZE = (EMBEDDED_FOLDER / "simclr-digits" / "model.safetensors").stat().st_size


def test_weights_may_lie_in_a_zoo(tmp_path: Path) -> None:
    embedded(tmp_path, {"schema_version": 1, "source": "embedded", "size": SIZE})
    change = check(tmp_path)
    assert not change.faults
    assert len(change.new) == 1 + len(
        list((EMBEDDED_FOLDER / "simclr-digits" / "entries").iterdir())
    )
    assert {new.verdict.reason for new in change.new} == {None}


@pytest.mark.parametrize(
    "source", ["/etc", "..", "http://example.org/zoo", "file:///etc", "hf-hub:a/b"]
)
def test_weights_come_from_no_other_place(tmp_path: Path, source: str) -> None:
    embedded(tmp_path, {"schema_version": 1, "source": source, "size": SIZE})
    failed = check(tmp_path).failed
    assert failed
    assert all("where everybody finds weights" in str(n.verdict.reason) for n in failed)


def test_weights_of_another_revision_are_refused(tmp_path: Path) -> None:
    folder = embedded(
        tmp_path, {"schema_version": 1, "source": "embedded", "size": SIZE}
    )
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    found = RevisionSource(folder.rename(folder.with_name("0" * 12)))
    with pytest.raises(UserError, match="has other weights"):
        found.fetch(found.index.encoders[0], "model.safetensors")
    assert check(tmp_path).failed


def test_the_command_ends_with_what_it_found(
    copied: Path,
    laid_out: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["results", "check", str(copied), "--against", str(laid_out[0])]
    told = tmp_path / "told" / "comment.md"
    for alter, code, text in (
        (lambda _: None, 0, "No new result"),
        (_lost, 1, "is gone"),
        (lambda root: (root / "robrep-results.json").unlink(), 2, ""),
    ):
        alter(copied)
        monkeypatch.setattr("sys.argv", ["robrep-zoo", *words, "--comment", str(told)])
        with pytest.raises(SystemExit) as left:
            run(cli, "robrep-zoo")
        assert int(str(left.value.code or 0)) == code
        assert text in told.read_text()
    assert "is no repository of results" in capsys.readouterr().err
