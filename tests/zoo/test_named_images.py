"""What a record says of images opens no folder beside DATA_DIR and fetches nothing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from forging import reseal
from test_photo_sets import parquet

from robrep_eval.run import plan
from robrep_eval.run.request import Request
from zoo import datasets
from zoo.collection import sources_embedded
from zoo.collection.audit import audit
from zoo.collection.audit import plan as items
from zoo.collection.index import INDEX, scan
from zoo.collection.sources import FolderSource
from zoo.datasets import local
from zoo.datasets.loading import load_recorded
from zoo.datasets.names import recorded_name
from zoo.errors import MissingDatasetError, UserError
from zoo.records import write_record

NAME, ENTRY = "tarrl-digits", "digits-linf-0.1-slf"
opened: list[str] = []


def _hear(event: str, args: tuple[object, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir", "socket.getaddrinfo"):
        opened.append(str(args[0]))


sys.addaudithook(_hear)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Images of the reader's, which nobody else knows of."""
    return parquet(tmp_path / "secret")


def _names(secret: Path) -> list[str]:
    return [
        f"imagefolder:{secret}",
        f"imagelist:{secret}/list.csv",
        f"hf-datasets:{secret}",
        f"hf-datasets:{secret}:validation@3x8x8",
        "hf-datasets:somebody/elses",
        "hf-datasets:mnist",
        "imagefolder:..",
        "imagefolder:~",
        "hf-datasets:../..",
    ]


def test_a_dataset_named_in_a_record_is_looked_for_in_one_folder(
    secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in _names(secret):
        opened.clear()
        with pytest.raises(MissingDatasetError, match="a record opens no other folder"):
            load_recorded(name, "test", Path("data"))
        assert not opened, name
    shutil.copytree(secret, tmp_path / "data" / "secret")
    for name in _names(secret)[2:4]:
        split = "train" if name.endswith("secret") else "test"
        assert len(load_recorded(name, split, Path("data"))) in (3, 4)


def test_an_entry_that_names_a_place_is_not_checked(
    secret: Path, tmp_path: Path
) -> None:
    root = tmp_path / "zoo"
    origin = Path(sources_embedded.__file__).parents[1] / "embedded" / NAME
    shutil.copytree(origin, root / NAME)
    place = root / NAME / "entries" / ENTRY
    for name in _names(secret):
        content = json.loads((place / "result.json").read_text())
        content["dataset"]["name"] = name
        (place / "result.json").write_text(json.dumps(content))
        _reseal(root, place)
        source = FolderSource(root)
        opened.clear()
        found = audit(
            source, items(source, f"{NAME}/{ENTRY}")[0], data_dir=tmp_path / "d"
        )
        assert found.unchecked, found.reason
        assert not [path for path in opened if "secret" in path or "elses" in path]


def _reseal(root: Path, place: Path) -> None:
    reseal(place)
    write_record(root / INDEX, scan(root))


def test_a_card_chooses_no_images_of_the_reader(secret: Path, tmp_path: Path) -> None:
    origin = Path(sources_embedded.__file__).parents[1] / "embedded" / NAME
    folder = tmp_path / "downloaded"
    shutil.copytree(origin, folder)
    for name in _names(secret)[:6]:
        card = json.loads((folder / "card.json").read_text())
        card["training"]["dataset"] = name
        (folder / "card.json").write_text(json.dumps(card))
        opened.clear()
        with pytest.raises(UserError, match=r"somebody's own images; name the ones"):
            plan.prepare(Request(model=str(folder), eps=0.1))
        assert not [path for path in opened if "secret" in path]


def test_where_images_of_a_hub_lie_is_noted_and_not_recorded(
    secret: Path, tmp_path: Path
) -> None:
    name = f"hf-datasets:{secret}:validation@3x8x8"
    assert recorded_name(name) == "hf-datasets:secret:validation@3x8x8"
    assert datasets.load(name, "test").name == recorded_name(name)
    assert recorded_name("hf-datasets:org/name") == "hf-datasets:org/name"
    local.note(tmp_path, name)
    assert local.noted(tmp_path) == name
    local.note(tmp_path, "hf-datasets:org/name")
    assert local.noted(tmp_path) == "hf-datasets:org/name"


def test_a_note_of_somebody_else_says_nothing(
    secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that was sent may hold a note; only this user's own are sealed here."""
    folder, name = tmp_path / "run", f"imagefolder:{secret}"
    folder.mkdir()
    for home in ("theirs", "mine"):
        monkeypatch.setenv("ROBREP_HOME", str(tmp_path / home))
        assert local.noted(folder) is None
        local.note(folder, name)
        assert local.noted(folder) == name
    assert (tmp_path / "mine" / local.KEY).stat().st_mode & 0o777 == 0o600
    note = folder / local.LOCAL
    for change in ({"dataset": f"{name}/other"}, {"seal": "0"}, {"seal": None}):
        content = json.loads(note.read_text()) | change
        note.write_text(json.dumps(content))
        assert local.noted(folder) is None
        local.note(folder, name)
