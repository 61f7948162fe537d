"""What was found of the published entries attacked again: the record and its table."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.reattack.record import FOUND, Line, add, read
from benchmarks.reattack.table import kind, losses, markdown
from zoo.collection.entries import read_entry
from zoo.collection.opening import open_source
from zoo.collection.reattack import draw
from zoo.errors import UserError

ROOT = Path(__file__).parents[1]


def line(entry: str, fell: int = 0, of: int = 50, *, strong: bool = False) -> Line:
    return Line(
        entry=entry,
        holds=True,
        strong=strong,
        seed=1,
        robust=2 * of,
        attacked=of,
        fallen={str(at): "square" for at in range(fell)},
    )


def test_each_line_is_of_a_published_entry_and_of_images_that_were_drawn() -> None:
    """By the entry's own verdicts and the seed, drawn again."""
    source = open_source("embedded")
    for name, found in read().items():
        encoder, _, entry = name.partition("/")
        result = read_entry(source, source.find(encoder), entry).result
        few = 25 if "efficientnet" in encoder else 50  # hours of one core otherwise
        rows = draw(result, few, found.seed)
        positions = {str(result.examples.index[row]) for row in rows}
        assert (found.robust, found.attacked) == (result.robust.k, len(rows))
        assert found.fallen.keys() <= positions


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("a/mnist-5k-blur-linf-0.1-slf-v2-fast", "blur"),
        ("a/digits-parity-1x28x28-linf-0.1-slf-v2-fast", "digits of 8x8, enlarged"),
        ("a/digits-3x32x32-linf8-slf-v2-fast", "digits of 8x8, enlarged"),
        ("a/digits-contrast-linf-0.04-slf-v2-fast", "contrast"),
        ("a/mnist-5k-1x8x8-linf-0.1-slf-v2-fast", "MNIST and clothing at 8x8"),
        ("blur-encoder/digits-linf-0.1-slf-fast", "all others"),
    ],
)
def test_kinds_of_tasks(entry: str, expected: str) -> None:
    assert kind(entry) == expected


def test_the_table_counts_by_labels_and_battery() -> None:
    lines = [
        line("pgd-at-x/mnist-5k-blur-fast", 5),
        line("spectral-x/mnist-5k-blur-fast", 1),
        line("spectral-y/mnist-5k-blur-fast", 1),
        line("trades-x/digits-linf-0.1-slf", 0, 1000, strong=True),
        line("simclr-x/digits-linf-0.1-slf", 0, 0, strong=True),
    ]
    text = markdown({one.entry: one for one in lines})
    assert "`standard`: 1 entries, 0 of 1,000 (0.0%) fell" in text
    assert "`fast`: 3 entries, 7 of 150 (4.7%) fell (7 to square). " in text
    assert "1 entries more have no robust image. Refuted: none" in text
    assert "| blur | 3 | 2 of 100 (2.0%) | 5 of 50 (10.0%) |" in text
    assert "smooth images, 7 of 150 (4.7%) fell; of all others none." in text
    assert losses("handwriting", ["spectral-c30-grid-fashion-mnist"], {}) is None


def test_the_record_is_what_was_added(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    lines = [line("a/one", 3), line("a/two")]
    for one in lines:
        add(one, path)
    assert list(read(path).values()) == lines


def test_the_document_has_the_table() -> None:
    command = [sys.executable, "-m", "benchmarks.reattack", "--table"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() in (ROOT / "docs/results/batteries.md").read_text()
    assert all(json.loads(text) for text in FOUND.read_text().splitlines())


def test_a_line_that_a_killed_process_left_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    add(line("a/one"), path)
    add(line("b/two"), path)
    whole = path.read_text()
    path.write_text(whole[:-9])
    assert list(read(path)) == ["a/one"]
    add(line("b/two"), path)
    assert path.read_text() == whole


def test_lines_as_an_editor_leaves_them_stay(tmp_path: Path) -> None:
    """With ends of another system, and without the last one."""
    path = tmp_path / "found.jsonl"
    for at in range(30):
        add(line(f"a/{at}"), path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")[:-2])
    assert len(read(path)) == 30
    add(line("b/last"), path)
    assert [*read(path)] == [*(f"a/{at}" for at in range(30)), "b/last"]


def reattack(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.reattack", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]\n", "line 1 is no line of this record"),
        (b"\n", "line 1 is no line of this record"),
        (b"\xff\xfe\n", "cannot read the record"),
        (None, "cannot read the record"),
    ],
)
def test_a_record_that_is_none(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "found.jsonl"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "nosuchword"), "no entry has the words nosuchword"),
        (("--count", "0"), "'0' is no number of at least 1"),
        (("--count", "-5"), "'-5' is no number of at least 1"),
        (("--only", "tarrl", "--record", "/proc/no/c.jsonl"), "/proc/no"),
    ],
)
def test_words_that_make_no_sense(words: tuple[str, ...], message: str) -> None:
    done = reattack(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_fewer_images_than_are_asked_for_are_not_enough() -> None:
    assert line("a/one", of=50).enough(50)
    assert not line("a/one", of=50).enough(60)
    few = Line(**{**asdict(line("a/one", of=2)), "robust": 2})
    assert few.enough(50)
