"""Ranks, ties and text forms of the leaderboard."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

import pytest
from boards import HOSTILE, board, row
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo_collection import ENTRY, Evaluated

from zoo.board.leaderboard import Board, build, doubts
from zoo.board.page import page
from zoo.board.ranking import compare, places
from zoo.board.text import HEADINGS, escape_latex, latex, markdown
from zoo.collection.model_card import escape_markdown, front_matter, readme
from zoo.collection.sources import FolderSource
from zoo.errors import UserError
from zoo.measurements import Measurements
from zoo.records import Outcome, Proportion, Result, Verdict


def result_like(base: Result, robust: list[bool], start: int = 0) -> Result:
    """A result whose verdicts are given, on images `start`, `start` + 1, ..."""
    n = len(robust)
    examples = base.examples.model_copy(
        update={
            "index": list(range(start, start + n)),
            "label": [0] * n,
            "clean_prediction": [0] * n,
            "verdict": [Verdict.ROBUST if r else Verdict.FOOLED for r in robust],
            "outcomes": {"a": [Outcome.HELD if r else Outcome.FOOLED for r in robust]},
        }
    )
    return base.model_copy(
        update={"examples": examples, "robust": Proportion.of(sum(robust), n)}
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_paired_comparison_is_mcnemar_of_statsmodels(
    evaluated: Evaluated, pairs: list[tuple[bool, bool]]
) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")

    first, second = (
        result_like(evaluated.result, [pair[i] for pair in pairs]) for i in (0, 1)
    )
    table = [[0, 0], [0, 0]]
    for a, b in pairs:
        table[a][b] += 1
    found = compare(first, second)
    assert found.paired
    assert found.p_value == pytest.approx(tables.mcnemar(table, exact=True).pvalue)


def test_only_shared_images_are_compared(evaluated: Evaluated) -> None:
    first = result_like(evaluated.result, [True] * 10 + [False] * 30)
    second = result_like(evaluated.result, [False] * 40, start=20)
    found = compare(first, second)
    assert (found.paired, found.shared, found.p_value) == (True, 20, 1.0)


def test_unpaired_comparison_is_fishers(evaluated: Evaluated) -> None:
    from scipy.stats import fisher_exact

    first = result_like(evaluated.result, [True] * 20 + [False] * 20)
    second = result_like(evaluated.result, [True] * 5 + [False] * 35, start=100)
    found = compare(first, second)
    assert not found.paired
    want = fisher_exact([[20, 20], [5, 35]]).pvalue
    assert found.p_value == pytest.approx(want)


def test_pairing_finds_what_the_intervals_hide(evaluated: Evaluated) -> None:
    # 12 of 200 images decide, all for the first: overlapping intervals, no tie.
    weaker = [i < 100 for i in range(200)]
    stronger = [i < 112 for i in range(200)]
    first, second = (result_like(evaluated.result, r) for r in (stronger, weaker))
    assert first.robust.low < second.robust.high
    assert not compare(first, second).tie


def test_places_share_ranks_where_nothing_is_shown(evaluated: Evaluated) -> None:
    rng = random.Random(0)
    strong = [rng.random() < 0.7 for _ in range(300)]
    nearly = [not r if i < 4 else r for i, r in enumerate(strong)]
    weak = [r and i % 2 == 0 for i, r in enumerate(strong)]
    found = places([result_like(evaluated.result, r) for r in (weak, strong, nearly)])
    assert [place.rank for place in found] == [3, 1, 1]
    assert [place.ties for place in found] == [(), (2,), (1,)]


def published_with_both(evaluated: Evaluated, root: str) -> Board:
    from zoo.collection.publish import Request, publish

    runs = [evaluated.run, evaluated.other_run]
    publish(Request(runs=runs, source=str(evaluated.plain)), root)
    return build(FolderSource(evaluated.run.parent / root))


def test_board_of_real_entries(evaluated: Evaluated) -> None:
    root = str(evaluated.run.parent / "both")
    found = published_with_both(evaluated, root)
    assert {row.reference for row in found.rows} == {
        f"tiny-digits/{ENTRY}",
        "tiny-digits/digits-l2-0.01-slf-fgsm",
    }
    assert [row.rank for row in found.rows] == [1, 1]  # two threat models: two groups
    assert [row.ties for row in found.rows] == [[], []]
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
    assert sum("doubtful" in line for line in table) == 1
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


def test_doubts_are_the_failed_health_checks(evaluated: Evaluated) -> None:
    assert doubts(evaluated.result) is None
    flags = [
        {"check": "a", "status": "pass", "summary": "Fine."},
        {"check": "b", "status": "fail", "summary": "Gradients vanish."},
    ]
    report = {"level": "default", "n": 60, "flags": flags}
    measured = Measurements.model_validate({"health": report})
    suspect = evaluated.result.model_copy(update={"measurements": measured})
    assert doubts(suspect) == ["Gradients vanish."]


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
    assert page(both).count(">tarrl, with labels, resnet18</span>") == 1
    assert page(both).count(">tarrl, resnet18</span>") == 1
