"""A folder without an index in which one card is broken: named, the others read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from zoo_collection import Evaluated, add_encoder

from zoo.board.leaderboard import build
from zoo.collection.index import INDEX, scan
from zoo.collection.opening import open_source
from zoo.collection.publish import Publication, publish
from zoo.commands.cli import cli
from zoo.commands.shell import run
from zoo.errors import UserError, VerificationError
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
    assert code == 2
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
