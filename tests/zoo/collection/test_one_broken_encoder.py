"""A folder without an index in which one card is broken: named, the others read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from zoo_collection import Evaluated, add_encoder

from zoo.board.leaderboard import build
from zoo.collection.index import INDEX, scan
from zoo.collection.opening import open_source
from zoo.collection.publish import Publication, publish
from zoo.commands.cli import cli
from zoo.commands.shell import run
from zoo.errors import RobrepError, UserError, VerificationError
from zoo.repository.adding import add, start
from zoo.repository.exporting import export

SOUND = "tiny-digits"


@pytest.fixture
def root(evaluated: Evaluated, tmp_path: Path) -> Path:
    """A sound encoder with an entry among three broken ones, the first and the last."""
    root = evaluated.copy(tmp_path / "zoo")
    (root / INDEX).unlink(missing_ok=True)
    for name in ("a-hollow", "b-renamed", "z-lacking"):
        add_encoder(root, name)
    (root / "a-hollow" / "card.json").write_text("{")
    (root / "b-renamed").rename(root / "other")
    (root / "z-lacking" / "model.safetensors").unlink()
    return root


REASONS = {
    "a-hollow": "card.json is not valid JSON",
    "other": "card.json is the card of 'b-renamed'",
    "z-lacking": "lists no file model.safetensors",
}


def ended(
    words: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `robrep-zoo`."""
    monkeypatch.setattr("sys.argv", ["robrep-zoo", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        run(cli, "robrep-zoo")
    out, err = capsys.readouterr()
    return int(str(left.value.code or 0)), out, err


def test_the_others_are_in_the_index(root: Path) -> None:
    source = open_source(root)
    assert source.index.names() == [SOUND]
    assert source.left_out.keys() == REASONS.keys()
    for name, reason in REASONS.items():
        assert reason in source.left_out[name]
        with pytest.raises(UserError) as told:
            source.find(name)
        assert str(told.value) == source.left_out[name]
    with pytest.raises(UserError, match="a-hollow"):
        scan(root)


def test_verify_names_each_and_checks_the_rest(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[object] = ["verify", "--all", "--source", root]
    code, out, err = ended(words, monkeypatch, capsys)
    assert code == 1
    failed = [line for line in out.splitlines() if line.startswith("FAILS")]
    assert [line.split()[1].rstrip(":") for line in failed] == list(REASONS)
    assert out.count("holds  ") == 2  # the sound encoder and its entry
    assert err.startswith("Error: 3 of 5 do not hold: a-hollow, other, z-lacking")
    code, out, _ = ended([*words, "--json"], monkeypatch, capsys)
    assert code == 1
    assert [v["item"] for v in json.loads(out) if not v["holds"]] == list(REASONS)


def test_list_and_leaderboard_show_the_rest(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ended(["list", "--json", "--source", root], monkeypatch, capsys)
    assert code == 1
    assert [card["name"] for card in json.loads(out)] == [SOUND]
    assert err.count("\n") == 1
    assert all(reason in err for reason in REASONS.values())
    board = build(open_source(root))
    assert [row.card.name for row in board.rows] == [SOUND]
    assert board.left_out.keys() == REASONS.keys()


def test_what_writes_the_index_anew_would_lose_them_and_stops(
    root: Path, evaluated: Evaluated, tmp_path: Path
) -> None:
    add_encoder(tmp_path, "new", seed=3)
    with pytest.raises(UserError, match=r"a-hollow.*; mend it or move it away first"):
        publish(Publication(runs=[tmp_path / "new"]), str(root))
    assert not (root / INDEX).exists()
    assert not (root / "new").exists()


def test_export_writes_the_rest_and_names_them(root: Path, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"1 files in .*; left out: a-hollow: "):
        export(open_source(root), tmp_path / "out", "every-eval-ever")
    assert len(list((tmp_path / "out").rglob("*.json"))) == 1


@pytest.mark.parametrize("error", [RobrepError("not reached"), OSError("no disk")])
def test_export_writes_the_rest_where_an_entry_cannot_be_got(
    evaluated: Evaluated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("zoo.repository.exporting.read_entry", refuse)
    source = open_source(evaluated.copy(tmp_path / "zoo"))
    with pytest.raises(VerificationError, match=f"1 files in .*{SOUND}/.*: {error}"):
        export(source, tmp_path / "out", "model-card")


ODD = b"a\xff\x1b[31m"
"""No UTF-8, and it would colour a terminal."""
SHOWN = "a\ufffd\ufffd[31m"


def _odd_in_folder(evaluated: Evaluated, root: Path) -> bytes:
    evaluated.copy(root)
    (root / INDEX).unlink(missing_ok=True)
    return ODD


def _odd_in_repository(evaluated: Evaluated, root: Path) -> bytes:
    start(root)
    add(Publication(runs=[evaluated.run], source=str(evaluated.plain)), root)
    return ODD + b"/0123456789ab"


@pytest.mark.parametrize("lay_out", [_odd_in_folder, _odd_in_repository])
def test_a_name_that_is_no_text_hides_no_other(
    evaluated: Evaluated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lay_out: Callable[[Evaluated, Path], bytes],
) -> None:
    root = tmp_path / "zoo"
    folder = os.path.join(os.fsencode(root), lay_out(evaluated, root))
    os.makedirs(folder)
    Path(os.fsdecode(folder), "card.json").write_text("{")
    at = ["--source", root]
    code, out, err = ended(["list", "--json", *at], monkeypatch, capsys)
    assert (code, [card["name"] for card in json.loads(out)]) == (1, [SOUND])
    assert SHOWN in err
    code, out, err = ended(["leaderboard", "--json", *at], monkeypatch, capsys)
    board = json.loads(out)
    assert (code, len(board["rows"]), list(board["left_out"])) == (0, 1, [SHOWN])
    assert SHOWN in err
    code, out, err = ended(["verify", "--all", "--json", *at], monkeypatch, capsys)
    found = {verdict["item"]: verdict["holds"] for verdict in json.loads(out)}
    assert code == 1
    assert found.pop(SHOWN) is False
    assert list(found.values()) == [True, True]
    source = open_source(root)
    everything = build(source).model_dump_json() + str(source.left_out)
    assert everything.encode()  # fails on a lone surrogate
    assert "\x1b" not in everything
    with pytest.raises(UserError, match=r"card\.json is not valid JSON"):
        source.find(os.fsdecode(ODD))


def test_of_two_names_that_look_alike_both_reasons_are_kept(tmp_path: Path) -> None:
    for name in (b"a\xfe", b"a\xff"):
        folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
        folder.mkdir()
        (folder / "card.json").write_text("{")
    left_out: dict[str, str] = {}
    scan(tmp_path, left_out)
    assert list(left_out) == ["a\ufffd"]
    assert left_out["a\ufffd"].count("is not valid JSON") == 2
