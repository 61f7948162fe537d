"""Commands of the zoo write over nothing that they did not write."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoo_collection import Evaluated, add_encoder

from zoo.collection.index import INDEX
from zoo.collection.publish import Publication, publish
from zoo.collection.sources import FolderSource
from zoo.commands.cli import cli
from zoo.commands.shell import run
from zoo.errors import UserError
from zoo.files import atomic, leftovers

NAME = "tiny-digits"


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_publishing_spares_files_of_others(
    evaluated: Evaluated, tmp_path: Path, name: str
) -> None:
    mine = tmp_path / "thesis" / NAME / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    request = Publication(runs=[evaluated.plain / NAME])
    with pytest.raises(UserError, match="was not published by robrep"):
        publish(request, str(tmp_path / "thesis"))
    assert mine.read_text() == "mine"
    assert [p.name for p in mine.parent.iterdir()] == [name]


def test_publishing_spares_another_index(evaluated: Evaluated, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text('{"my": "site"}')
    with pytest.raises(UserError):
        publish(Publication(runs=[evaluated.plain / NAME]), str(tmp_path))
    assert (tmp_path / INDEX).read_text() == '{"my": "site"}'


def test_pages_that_were_published_are_brought_up_to_date(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    source = str(evaluated.plain)
    publish(Publication(runs=[evaluated.other_run], source=source), str(root))
    assert len(FolderSource(root).find(NAME).entries) == 2


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
def test_outputs_that_are_taken(
    evaluated: Evaluated,
    tmp_path: Path,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, other = tmp_path / "place", tmp_path / "other"
    other.write_text("mine")
    if kind == "file":
        place.write_text("mine")
    elif kind == "folder":
        place.mkdir()
        (place / "thesis.tex").write_text("mine")
    else:
        place.symlink_to(other if kind == "link" else tmp_path / "gone")
    before = sorted(p.name for p in tmp_path.iterdir())
    code = call("leaderboard", "--html", str(place), "--source", str(evaluated.plain))
    assert code == 2
    assert str(place) in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert other.read_text() == "mine"


def test_a_board_replaces_its_own_page(evaluated: Evaluated, tmp_path: Path) -> None:
    words = ("leaderboard", "--html", str(tmp_path / "b.html"))
    for _ in range(2):
        assert call(*words, "--source", str(evaluated.plain)) == 0


def test_a_download_spares_what_is_there(tmp_path: Path) -> None:
    add_encoder(tmp_path / "zoo", "e")
    mine = tmp_path / "to" / "model.safetensors"
    mine.parent.mkdir()
    mine.write_text("mine")
    source = str(tmp_path / "zoo")
    assert call("download", "e", "--to", str(mine.parent), "--source", source) == 2
    assert mine.read_text() == "mine"


def test_only_what_a_kill_left_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for name in (".checkpoint.pt.bak", ".checkpoint.pt.original", "checkpoint.pt"):
        (tmp_path / name).write_text("mine")
    with atomic(path) as temporary:
        found = leftovers(path)
        temporary.write_text("new")
    assert temporary in found
    assert tmp_path / ".checkpoint.pt.bak" not in found


def call(*words: str) -> int:
    """Exit code of robrep-zoo."""
    with pytest.raises(SystemExit) as stopped:
        run(lambda **rest: cli(list(words), **rest), "robrep-zoo")
    code = stopped.value.code
    return code if isinstance(code, int) else 1
