"""`robrep-zoo verify` by several real processes: the verdict of one, or no verdict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import verifying_worker
from forging import rehash
from whole import read_whole, write_whole

from zoo.collection import sources_embedded
from zoo.collection.index import INDEX, scan
from zoo.device import check_device
from zoo.errors import UserError
from zoo.processes import PATIENCE, PATIENCE_IN, meeting_place, patience
from zoo.records import write_record

WORKER = Path(verifying_worker.__file__)
NAME, ENTRY = "tarrl-digits", "digits-linf-0.1-slf"
pytestmark = [pytest.mark.timeout(900)]  # processes that import torch, on a busy host


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A collection that holds one encoder and its entries."""
    origin = Path(sources_embedded.__file__).parents[1] / "embedded" / NAME
    shutil.copytree(origin, tmp_path / "zoo" / NAME)
    write_record(tmp_path / "zoo" / INDEX, scan(tmp_path / "zoo"))
    return tmp_path / "zoo"


def verify(
    root: Path, count: int, *words: str, what: str = "goes on", rank: int = 0
) -> tuple[int, str, str, list[int]]:
    """Exit code, stdout, stderr, and the images that each of `count` processes passed.

    A single one is started without torchrun.
    """
    passed = root.parent / f"passed-{count}"
    passed.mkdir(exist_ok=True)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command = [sys.executable, *([*launch, str(count)] if count > 1 else [])]
    command += [str(WORKER), what, str(rank), str(passed), "verify", *words]
    seconds = "20" if what in ("hangs", "ends") else "600"
    done = subprocess.run(
        [*command, "--source", str(root)],
        env={**os.environ, "OMP_NUM_THREADS": "1", PATIENCE_IN: seconds},
        capture_output=True,
        text=True,
        check=False,
    )
    files = sorted(passed.iterdir())
    return (
        done.returncode,
        done.stdout,
        done.stderr,
        [int(file.read_text()) for file in files],
    )


def verdicts(stdout: str) -> list[dict[str, Any]]:
    """All of `--json` but the seconds."""
    found: list[dict[str, Any]] = json.loads(stdout)
    return [{k: v for k, v in one.items() if k != "seconds"} for one in found]


def forge(root: Path, what: str) -> None:
    """One wrong clean prediction, of an image of the second process; or a ball so
    small that no adversarial lies inside."""
    place = root / NAME / "entries" / ENTRY
    content = read_whole(place)
    content["measurements"] = {}
    examples = content["examples"]
    if what == "ball":
        content["threat"]["eps"] /= 2
    else:
        row = verifying_worker.BLOCK  # the first of the second block
        stated = examples["clean_prediction"][row]
        examples["clean_prediction"][row] = (stated + 1) % 10
    write_whole(place, content)
    rehash(root, place)


@pytest.mark.slow
def test_the_verdict_of_two_and_four_processes_is_that_of_one(root: Path) -> None:
    """Of a sound entry; and they share the passes evenly."""
    found = {n: verify(root, n, f"{NAME}/{ENTRY}", "--json") for n in (1, 2, 4)}
    code, text, errors, alone = found[1]
    assert code == 0, errors
    assert verdicts(text)[0]["holds"]
    for count in (2, 4):
        code, shared, errors, passed = found[count]
        assert code == 0, errors
        assert verdicts(shared) == verdicts(text)
        assert len(passed) == count
        assert sum(passed) == sum(alone)
        assert max(passed) < 1.5 * sum(alone) / count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "reason"),
    [("prediction", "clean predictions differ for 1 of"), ("ball", "does not count")],
)
def test_a_forgery_is_refused_as_by_one(root: Path, what: str, reason: str) -> None:
    """Also where the leading process did not see it."""
    forge(root, what)
    code, text, _, _ = verify(root, 1, f"{NAME}/{ENTRY}", "--json")
    (alone,) = verdicts(text)
    assert (code, alone["holds"]) == (1, False)
    assert reason in alone["reason"]
    code, text, _, _ = verify(root, 2, f"{NAME}/{ENTRY}", "--json")
    assert (code, verdicts(text)) == (1, [alone])


@pytest.mark.slow
def test_processes_take_the_entries_of_a_collection_from_a_queue(root: Path) -> None:
    """One of them forged: named, and the others hold."""
    forge(root, "prediction")
    code, text, _, _ = verify(root, 1, "--all", "--json")
    alone = verdicts(text)
    assert (code, len({v["holds"] for v in alone})) == (1, 2)
    code, text, errors, _ = verify(root, 2, "--all", "--json")
    assert (code, verdicts(text)) == (1, alone)
    assert f"1 of {len(alone)} do not hold: {NAME}/{ENTRY}" in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "what", "rank"),
    [
        (f"{NAME}/{ENTRY}", "hangs", 0),
        (f"{NAME}/{ENTRY}", "ends", 1),
        ("--all", "ends", 0),
        ("--all", "hangs", 1),
    ],
)
def test_a_process_that_does_not_come_is_named(
    root: Path, words: str, what: str, rank: int
) -> None:
    """Also the leading one, and one that ends as if all were well."""
    code, text, errors, _ = verify(root, 2, words, what=what, rank=rank)
    assert code == 1, errors
    assert f"Error: process {rank} of this verification ended or hung" in errors
    assert f"holds  {NAME}/{ENTRY}" not in text
    assert " hold (" not in errors


@pytest.mark.slow
def test_what_one_process_fails_at_fails_for_all(root: Path) -> None:
    code, text, errors, _ = verify(root, 2, f"{NAME}/{ENTRY}", what="fails", rank=1)
    assert code == 1, errors
    assert f"FAILS  {NAME}/{ENTRY}: process 1: no memory left" in text


@pytest.mark.slow
def test_a_new_attack_by_several_processes_finds_what_one_finds(root: Path) -> None:
    """One of them attacks an entry; the other one has no part in it."""
    words = [f"{NAME}/{ENTRY}", "--json", "--attack", "2", "--seed", "5"]
    code, text, errors, _ = verify(root, 1, *words)
    (alone,) = verdicts(text)
    assert (code, alone["reattacked"]["attacked"]) == (0, 2), errors
    code, text, errors, passed = verify(root, 2, *words)
    assert (code, verdicts(text), len(passed)) == (0, [alone], 1), errors


def test_each_process_of_a_host_has_a_gpu_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(1))
    for local in ("0", "1", "2"):
        monkeypatch.setenv("LOCAL_RANK", local)
        check_device("cuda")
    check_device("cpu")
    check_device("cuda:1")
    assert chosen == [0, 1, 0]


@pytest.mark.parametrize("text", ["0", "-3", "soon", "nan", "1e300"])
def test_a_patience_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(PATIENCE_IN, text)
    with pytest.raises(UserError, match=f"{PATIENCE_IN} is '{text}'"):
        patience()
    monkeypatch.setenv(PATIENCE_IN, "")
    assert patience() == PATIENCE


def test_processes_that_cannot_meet_are_told_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"WORLD_SIZE is 2, but .*RANK"):
        meeting_place("test")
