"""Lists and boards stay readable with 25 encoders, three datasets, two protocols."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from boards import METHODS, SIZES, large
from rich.console import Console
from zoo_collection import Evaluated, add_encoder

from zoo.board.leaderboard import build
from zoo.board.text import HEADINGS, latex, markdown, terminal
from zoo.collection.index import INDEX, describe_folder, scan
from zoo.collection.sources import FolderSource
from zoo.errors import UserError
from zoo.records import Training, write_record

NAMES = [
    name
    for data, count in SIZES.items()
    for name in sorted(f"{method}-{data}" for method in METHODS[:count])
]
"""By dataset, then by name."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of 25 encoders."""
    folder = tmp_path_factory.mktemp("many")
    for at, name in enumerate(NAMES):
        data = next(known for known in SIZES if name.endswith(known))
        method = name.removesuffix(f"-{data}")
        training = Training(method=method, dataset=data)
        add_encoder(folder, name, seed=at, training=training)
    write_record(folder / INDEX, scan(folder))
    return folder


def listed(root: Path, *args: str, columns: str | None = "80") -> list[str]:
    environment = {"PATH": "", **({"COLUMNS": columns} if columns else {})}
    done = subprocess.run(
        [sys.executable, "-m", "zoo", "list", "--source", str(root), *args],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_list_has_one_line_per_encoder_by_dataset(root: Path) -> None:
    lines = listed(root)
    assert "25 encoders" in " ".join(lines[:4])
    assert max(map(len, lines)) <= 80
    first = [line.split()[0] for line in lines if line.strip()]
    assert [word for word in first if word in NAMES] == NAMES
    headings = [line.strip() for line in lines if "trained on" in line]
    assert headings == [f"trained on {data}" for data in SIZES]
    (line,) = [line for line in lines if line.split()[:1] == ["tarrl-ball-digits"]]
    _, *rest = line.split()
    assert rest == ["tarrl-ball", "clean", "resnet_s8", "1x8x8", "0"]


def test_a_list_is_filtered(root: Path) -> None:
    some = listed(root, "--dataset", "cifar10", "--dataset", "digits", "--json")
    assert len(json.loads("".join(some))) == 15
    lines = listed(root, "--method", "tarrl", columns=None)
    assert [word for line in lines for word in line.split() if word in NAMES] == [
        "tarrl-digits",
        "tarrl-fashion-mnist",
    ]


def test_a_pipe_gets_whole_lines(root: Path, tmp_path: Path) -> None:
    name = "x" * 90
    add_encoder(tmp_path, name)
    lines = listed(tmp_path, columns=None)
    assert any(name in line and "resnet_s8" in line for line in lines)


def test_a_board_fits_a_terminal_of_80_columns() -> None:
    text = io.StringIO()
    Console(file=text, width=80, markup=False, highlight=False).print(terminal(large()))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if "]" in line]  # "checked" stands below
    assert len(rows) == len(large().rows) == 50
    for words, row in zip(rows, large().rows, strict=True):
        assert " ".join(words).startswith(f"{row.place} {row.card.name} ")
    titles = [line.strip() for line in lines if "Linf 8/255" in line]
    assert titles == [
        f"{data}, Linf 8/255, {protocol}, standard"
        for data in SIZES
        for protocol in ("SLF", "ALF")
    ]


def test_sections_in_markdown_and_latex() -> None:
    text = markdown(large())
    sections = 3 * 2
    assert text.count("### ") == sections
    assert text.count("| rank |") == sections
    assert sum(line.startswith("| ") for line in text.splitlines()) == 50 + 2 * sections
    tabular = latex(large())
    assert tabular.count(rf"\multicolumn{{{len(HEADINGS)}}}{{l}}") == sections
    assert tabular.count(r" \\") == 50 + sections + 1


def test_a_board_is_filtered_by_protocol(evaluated: Evaluated) -> None:
    source = FolderSource(evaluated.published)
    assert len(build(source, protocols=["SLF"]).rows) == 1
    with pytest.raises(UserError, match=r"nothing here is of protocol 'aff'; .* slf"):
        build(source, protocols=["AFF"])


def test_thousands_of_encoders(tmp_path: Path) -> None:
    add_encoder(tmp_path, "one")
    row = describe_folder(tmp_path / "one", "one").model_dump(mode="json")
    many = [
        {**row, "folder": f"e{at}", "card": {**row["card"], "name": f"e{at}"}}
        for at in range(5000)
    ]
    index = {"schema_version": 1, "encoders": many}
    (tmp_path / INDEX).write_text(json.dumps(index))
    source = FolderSource(tmp_path)
    assert source.find("e4999").folder == "e4999"
    many.append(many[7])
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="'e7' is listed twice"):
        FolderSource(tmp_path).find("e1")


@pytest.mark.parametrize("what", ["file", "entry", "folder"])
def test_nothing_is_listed_twice(tmp_path: Path, what: str) -> None:
    """It would be checked as often, and an entry ranked as often."""
    add_encoder(tmp_path, "one")
    row = describe_folder(tmp_path / "one", "one").model_dump(mode="json")
    place = "entries/a/entry.json"
    row["files"].append({**row["files"][0], "path": place})
    row["entries"] = ["a"]
    rows = [row]
    if what == "folder":
        rows.append({**row, "card": {**row["card"], "name": "two"}})
    elif what == "file":
        row["files"] *= 2
    else:
        row["entries"] *= 2
    index = {"schema_version": 1, "encoders": rows}
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match=f"the {what} '.*' is listed twice"):
        FolderSource(tmp_path).find("one")
