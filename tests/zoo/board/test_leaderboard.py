"""Ranks, ties and text forms of the leaderboard."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from boards import HOSTILE, board, row
from forging import rehash
from markupsafe import escape
from whole import read_whole, write_whole
from zoo_collection import ENTRY, Evaluated

from zoo.board.leaderboard import Board, build
from zoo.board.page import page
from zoo.board.text import HEADINGS, latex, markdown
from zoo.claims import EXPLAINED, UNPROVEN, Basis, names
from zoo.collection.model_card import front_matter, readme
from zoo.collection.sources import FolderSource
from zoo.errors import UserError
from zoo.judgement import Judgement, doubts, judge
from zoo.measurements import Measurements, Status
from zoo.selection import SELECTED
from zoo.tables import escape_latex, escape_markdown


def published_with_both(evaluated: Evaluated, root: str) -> Board:
    from zoo.collection.publish import Publication, publish

    runs = [evaluated.run, evaluated.other_run]
    publish(Publication(runs=runs, source=str(evaluated.plain)), root)
    return build(FolderSource(evaluated.run.parent / root))


def test_board_of_real_entries(evaluated: Evaluated) -> None:
    root = str(evaluated.run.parent / "both")
    found = published_with_both(evaluated, root)
    assert {row.reference for row in found.rows} == {
        f"tiny-digits/{ENTRY}",
        "tiny-digits/digits-l2-0.01-slf-v2-fgsm",
    }
    assert [row.place for row in found.rows] == ["1", "1"]  # two threat models
    linf = next(row for row in found.rows if row.threat.norm == "Linf")
    assert linf.robust == evaluated.result.robust
    with pytest.raises(UserError, match="nothing here is measured on 'mnist'"):
        build(FolderSource(evaluated.published), datasets=["mnist"])


def test_verified_boards_leave_out_what_does_not_hold(
    evaluated: Evaluated, tmp_path: object
) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    root = evaluated.copy(tmp_path / "zoo")
    assert build(FolderSource(root), verify=True).rows[0].verified
    path = root / "tiny-digits" / "entries" / ENTRY / "deltas.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    found = build(FolderSource(root), verify=True)
    assert found.rows == []
    assert "SHA-256" in found.left_out[f"tiny-digits/{ENTRY}"]


@pytest.mark.parametrize("unlike", [{"battery": "custom"}, {"images": SELECTED}])
def test_what_cannot_be_compared_is_shown_without_a_rank(
    unlike: dict[str, str],
) -> None:
    odd = row("odd", 900, 890, rank=0, last=0, **unlike)  # type: ignore[arg-type]
    rows = [*board().rows, odd]
    shown = markdown(Board(source="here", rows=rows))
    title = f"### cifar10, Linf 8/255, SLF, {', '.join(unlike.values())}"
    wanted = title if "battery" in unlike else title.replace("SLF,", "SLF, standard,")
    assert wanted in shown.splitlines()
    assert "| - | odd |" in shown
    text = page(Board(source="here", rows=rows))
    assert f"cifar10, Linf 8/255, {next(iter(unlike.values()))} (1)" in text


def test_the_page_names_the_classes_of_claims() -> None:
    text = page(board())
    for basis in Basis:
        assert f"<dt>{basis}</dt><dd>{EXPLAINED[basis]}" in text
        assert str(escape(names(basis))) in text
    assert UNPROVEN in text
    assert "robrep-zoo verify NAME --attack N --source https://" in text


def test_markdown_keeps_its_columns() -> None:
    lines = markdown(board()).splitlines()
    import re

    table = [line for line in lines if line.startswith("|")]
    assert len(table) == len(board().rows) + 2 * 4  # a head in each of four sections
    for line in table:
        assert len(re.findall(r"(?<!\\)\|", line)) == len(HEADINGS) + 1
    assert [line for line in lines if line.startswith("#")] == [
        "### cifar10, Linf 8/255, SLF, standard",
        "### cifar10, L2 0.5, AFF, standard",
        "### digits, Linf 8/255, SLF, standard",
        "### digits, Linf 8/255, ALF, standard",
    ]
    assert sum("broken" in line and "| - |" in line for line in table) == 1
    unchecked = [row for row in board().rows if row.doubts is None]
    assert sum("] not checked |" in line for line in table) == len(unchecked)
    assert "<script>" not in "\n".join(lines).replace("\\<", "")


def test_latex_has_no_bare_special_characters() -> None:
    text = latex(board())
    body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    assert body.count("&") - body.count(r"\&") == 7 * (len(HEADINGS) - 1)
    assert escape_latex("50% of a_b & {c}\\") == (
        r"50\% of a\_b \& \{c\}\textbackslash{}"
    )


def test_model_card_survives_hostile_text(evaluated: Evaluated) -> None:
    import yaml

    from zoo.collection.entries import read_entry

    source = FolderSource(evaluated.published)
    row = source.find("tiny-digits")
    entry = read_entry(source, row, ENTRY)
    training = row.card.training.model_copy(update={"method": f"a: {HOSTILE}\n---\n"})
    hostile = row.card.model_copy(
        update={"training": training, "description": f"---\n{HOSTILE}", "notes": "`x`"}
    )
    text = readme(hostile, [entry])
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head) == front_matter(hostile, [entry])
    assert "<script" not in body.replace("\\<", "")
    assert escape_markdown("a|b<c>") == r"a\|b\<c\>"


def test_front_matter_is_the_hubs(evaluated: Evaluated) -> None:
    from huggingface_hub import ModelCard, parse_eval_result_entries

    from zoo.collection.entries import read_entry
    from zoo.collection.model_card import eval_results

    source = FolderSource(evaluated.published)
    row = source.find("tiny-digits")
    entry = read_entry(source, row, ENTRY)
    card = ModelCard(readme(row.card, [entry]))
    data: Any = card.data
    metrics = data.to_dict()["model-index"][0]["results"][0]["metrics"]
    assert metrics[1]["value"] == evaluated.result.robust.value
    assert "self-supervised" in data.tags
    training = row.card.training.model_copy(update={"labels": True})
    with_labels: Any = ModelCard(
        readme(row.card.model_copy(update={"training": training}), [entry])
    ).data
    assert "self-supervised" not in with_labels.tags
    assert eval_results([entry]) is None  # the hub knows no digits
    renamed = entry.result.dataset.model_copy(update={"name": "cifar10"})
    import dataclasses

    import yaml

    on_cifar = dataclasses.replace(
        entry, result=entry.result.model_copy(update={"dataset": renamed})
    )
    text = eval_results([on_cifar])
    assert text is not None
    clean, robust = parse_eval_result_entries(yaml.safe_load(text))
    assert clean.dataset_id == "uoft-cs/cifar10"
    assert robust.value == evaluated.result.robust.value


def test_a_doubtful_evaluation_has_no_rank(evaluated: Evaluated) -> None:
    rows = {}
    for status in Status:
        flag = {"check": "a", "status": status, "summary": "Said."}
        report = {"level": "default", "n": 60, "flags": [flag]}
        measured = Measurements.model_validate({"health": report})
        found = evaluated.result.model_copy(update={"measurements": measured})
        judgement = judge(measured.health)
        assert f", {judgement}>" in repr(found)
        rows[status] = row("one", 900, 800, rank=0, last=0, judgement=judgement)
    assert [each.ranked for each in rows.values()] == [True, False, False]
    shown = {s: markdown(Board(source="here", rows=[r])) for s, r in rows.items()}
    words = {Status.PASS: "", Status.WARN: " doubtful", Status.FAIL: " broken"}
    for status, text in shown.items():
        (line,) = [line for line in text.splitlines() if "| one |" in line]
        assert line.removesuffix(" |").rpartition("]")[2] == words[status]
    assert judge(None) is Judgement.UNCHECKED


def test_a_broken_evaluation_moves_nobody(evaluated: Evaluated, tmp_path: Path) -> None:
    """Ranks are those that the others have without it; it stands below them."""
    shutil.copytree(evaluated.published, tmp_path / "zoo")
    place = tmp_path / "zoo" / "tiny-digits" / "entries" / ENTRY
    content = read_whole(place)
    flag = {"check": "a", "status": "fail", "summary": "Said.", "examples": []}
    report = {"level": "default", "n": 60, "flags": [flag]}
    content["measurements"]["health"] = report
    write_whole(place, content)
    rehash(tmp_path / "zoo", place)
    found = build(FolderSource(tmp_path / "zoo")).rows
    before = build(FolderSource(evaluated.published)).rows
    assert [r.place for r in before] == ["1"]
    assert [(r.place, r.judgement) for r in found] == [("-", Judgement.BROKEN)]


def test_doubts_are_the_health_checks_that_object(evaluated: Evaluated) -> None:
    assert doubts(evaluated.result.measurements.health) is None
    flags = [
        {"check": "a", "status": "pass", "summary": "Fine."},
        {"check": "c", "status": "warn", "summary": "Steps are few."},
        {"check": "b", "status": "fail", "summary": "Gradients vanish."},
    ]
    report = {"level": "default", "n": 60, "flags": flags}
    measured = Measurements.model_validate({"health": report})
    assert doubts(measured.health) == ["Gradients vanish.", "Steps are few."]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["--json", "--markdown", "--latex", None])
def test_the_command(evaluated: Evaluated, form: str | None) -> None:
    command = [sys.executable, "-m", "zoo", "leaderboard"]
    command += ["--source", str(evaluated.published)]
    done = subprocess.run(
        [*command, *([form] if form else [])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "tiny-digits" in done.stdout
    if form == "--json":
        rows = json.loads(done.stdout)["rows"]
        assert rows[0]["robust"]["k"] == evaluated.result.robust.k


def test_labels_in_pretraining_are_told() -> None:
    plain = row("plain", 900, 500)
    training = plain.card.training.model_copy(update={"labels": True})
    labelled = row("labelled", 900, 600, card={"training": training})
    both = Board(source="embedded", rows=[labelled, plain])
    for text in (markdown(both), latex(both)):
        assert text.count("tarrl, with labels") == 1
