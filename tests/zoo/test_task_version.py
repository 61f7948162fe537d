"""Versions of tasks: in each record, checked, and apart on the leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from boards import row
from zoo_collection import ENTRY, Evaluated

from robrep_eval.compare import compare
from robrep_eval.probes.protocols import DESCRIPTIONS
from zoo import datasets
from zoo.board.leaderboard import Row
from zoo.board.page import _task
from zoo.collection.entries import read_entry
from zoo.collection.opening import open_source
from zoo.errors import VerificationError
from zoo.records import Result, TaskVersion
from zoo.result_file import read_result, write_result
from zoo.task_version import (
    GRIDS,
    PROTOCOLS,
    check_version,
    shown,
    task_version,
    version_of,
)

EMBEDDED = ("tarrl-digits", "digits-linf-0.1-slf")


def result_of(evaluated: Evaluated, **update: Any) -> Result:
    return evaluated.result.model_copy(update=update)


def test_every_protocol_has_a_version() -> None:
    assert PROTOCOLS.keys() == DESCRIPTIONS.keys()


def test_a_record_holds_the_version_of_its_task(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    result = evaluated.result
    now = TaskVersion(dataset=datasets.get("digits").version, probe=PROTOCOLS["SLF"])
    assert result.task == now
    source = open_source(evaluated.published)
    published = read_entry(source, source.find("tiny-digits"), ENTRY)
    assert published.result.task == now
    write_result(tmp_path, result)
    assert read_result(tmp_path).task == now


def test_an_older_record_has_the_first_version() -> None:
    source = open_source("embedded")
    published = read_entry(source, source.find(EMBEDDED[0]), EMBEDDED[1])
    older = published.result.model_copy(update={"task": None})
    assert version_of(older) == TaskVersion(dataset=1, probe=1)
    assert shown(version_of(older)) == ""
    assert check_version(older) == "dataset 1, probe 1"


def test_images_of_ones_own_and_ready_classifiers_have_none() -> None:
    for name in ("imagefolder:flowers", "hf-datasets:org/name:test", "tensors"):
        assert task_version(name, None) == TaskVersion(dataset=None, probe=None)
    assert task_version("digits@1x28x28", None).dataset == 1


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskVersion(dataset=2, probe=1), "version 2 of its dataset"),
        (TaskVersion(dataset=1, probe=7), "knows 2 at most"),
        (TaskVersion(dataset=None, probe=1), "version None of its dataset"),
        (TaskVersion(dataset=1, probe=None), "it has one"),
    ],
    ids=str,
)
def test_versions_that_cannot_be_are_refused(
    evaluated: Evaluated, task: TaskVersion, message: str
) -> None:
    with pytest.raises(VerificationError, match=message):
        check_version(result_of(evaluated, task=task))


def test_another_version_is_another_group() -> None:
    first, second = row("a", 900, 500), row("b", 900, 500, version="dataset 1, probe 2")
    assert isinstance(first, Row)
    assert first.group != second.group
    assert "probe 2" in second.group
    assert _task(second).endswith("dataset 1, probe 2")
    assert shown(TaskVersion(dataset=1, probe=2)) == second.version
    assert shown(TaskVersion(dataset=None, probe=1)) == ""


def test_a_version_that_its_penalties_contradict_is_refused(
    evaluated: Evaluated,
) -> None:
    probe = evaluated.result.probe
    assert probe is not None

    def told(penalties: tuple[float, ...], version: int) -> Result:
        own = {**probe.parameters, "penalties": list(penalties)}
        return result_of(
            evaluated,
            probe=probe.model_copy(update={"parameters": own}),
            task=TaskVersion(dataset=1, probe=version),
        )

    for version in (1, 2):
        assert check_version(told(GRIDS["SLF", version], version))
        with pytest.raises(VerificationError, match=f"those of version {version}"):
            check_version(told(GRIDS["SLF", version], 3 - version))
        older = told(GRIDS["SLF", version], version)
        assert task_version("digits", older.probe).probe == version


def test_a_comparison_of_two_versions_says_so(evaluated: Evaluated) -> None:
    new = evaluated.result
    old = result_of(evaluated, task=TaskVersion(dataset=1, probe=1))
    (caution,) = compare(old, new).cautions
    assert caution.startswith("A is of SLF 1, B of SLF 2")
    assert compare(new, new).cautions == []


def test_published_entries_name_a_later_version_alone() -> None:
    source = open_source("embedded")
    for encoder in source.index.encoders:
        for name in encoder.entries:
            result = read_entry(source, encoder, name).result
            version = version_of(result)
            later = "dataset 1, probe 2" if "-slf-v2" in name else ""
            assert shown(version) == later, f"{encoder.card.name}/{name}"
            check_version(result)
