"""How often commands ask a server for the index, and what Tab does when it is down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
import serving
from zoo_collection import Evaluated, add_encoder

from zoo.collection.index import INDEX, scan
from zoo.commands.completion import encoder_names
from zoo.records import write_record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three encoders with an index."""
    folder = tmp_path_factory.mktemp("zoo")
    for seed, name in enumerate(("first-digits", "second-digits", "third-digits")):
        add_encoder(folder, name, seed, description=f"the [red]{name}[/red]")
    write_record(folder / INDEX, scan(folder))
    return folder


@pytest.fixture
def server(root: Path) -> Iterator[serving.Server]:
    with serving.serving(root) as running:
        yield running


def command(module: str, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "ROBREP_ZOO"}
    return subprocess.run(
        [sys.executable, "-m", module, *args],
        capture_output=True,
        text=True,
        env={**environment, "COLUMNS": "120", **more},
    )


def asked(server: serving.Server) -> list[str]:
    """What was asked for, and forgets it."""
    paths = [path for path, _ in server.requests]
    server.requests.clear()
    return paths


@pytest.mark.parametrize(
    ("module", "args"),
    [
        ("zoo", ["list"]),
        ("zoo", ["list", "--json"]),
        ("zoo", ["show", "second-digits"]),
        ("zoo", ["leaderboard"]),
        ("robrep_eval", ["list"]),
    ],
)
def test_the_index_is_fetched_once_and_nothing_else(
    server: serving.Server, module: str, args: list[str]
) -> None:
    done = command(module, *args, ROBREP_ZOO=server.url)
    assert done.returncode == 0, done.stderr
    assert asked(server) == [INDEX]
    if "list" in args:
        for name in ("first-digits", "second-digits", "third-digits"):
            assert name in done.stdout
    if module == "robrep_eval":
        assert "the [red]first-digits[/red]" in done.stdout


def test_a_board_asks_for_the_index_once_and_for_each_record_once(
    evaluated: Evaluated,
) -> None:
    with serving.serving(evaluated.published) as server:
        done = command("zoo", "leaderboard", "--json", ROBREP_ZOO=server.url)
        assert done.returncode == 0, done.stderr
        paths = asked(server)
    assert paths.count(INDEX) == 1
    assert len(paths) == len(set(paths)) == 4  # and entry.json, result.json, columns


def test_the_rest_is_listed_when_the_zoo_is_down() -> None:
    done = command("robrep_eval", "list", ROBREP_ZOO="/nowhere/zoo")
    assert done.returncode == 0
    assert "apgd-t" in done.stdout
    (note,) = done.stderr.splitlines()
    assert note.startswith("the encoders of the zoo are left out: no zoo at /nowhere")


def complete(program: str, words: str, **environment: str) -> list[str]:
    """What pressing Tab after `words` offers, as bash asks for it."""
    module = {
        "robrep-zoo": "zoo.commands.cli",
        "robrep-eval": "robrep_eval.commands.cli",
    }[program]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.argv[0] = {program!r}; from {module} import main; main()",
        ],
        capture_output=True,
        text=True,
        env={
            **{k: v for k, v in os.environ.items() if k != "ROBREP_ZOO"},
            f"_{program.replace('-', '_').upper()}_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            **environment,
        },
    )
    assert done.stderr == ""
    return [line.removeprefix("plain,") for line in done.stdout.split()]


def test_tab_names_encoders_with_one_request(server: serving.Server) -> None:
    offered = complete("robrep-zoo", "robrep-zoo show s", ROBREP_ZOO=server.url)
    assert offered == ["second-digits"]
    assert asked(server) == [INDEX]
    words = f"robrep-zoo verify --source {server.url} t"
    assert complete("robrep-zoo", words) == ["third-digits"]
    assert asked(server) == [INDEX]
    words = "robrep-eval run --model zoo:f"
    assert complete("robrep-eval", words, ROBREP_ZOO=server.url) == ["zoo:first-digits"]
    assert asked(server) == [INDEX]


@pytest.mark.parametrize(
    "source", ["/nowhere/zoo", "ftp://host/zoo", "http://127.0.0.1:9/zoo", "hf://x"]
)
def test_tab_offers_nothing_when_there_is_no_zoo(source: str) -> None:
    assert complete("robrep-zoo", "robrep-zoo show ", ROBREP_ZOO=source) == []


def hanging(release: Event) -> serving.Behaviour:
    """Answers when it is told to."""

    def answer(handler: serving.Handler, content: bytes) -> None:
        release.wait()
        serving.whole(handler, content)

    return answer


@pytest.mark.parametrize(
    "fault",
    [
        serving.status(500),
        serving.status(404),
        serving.instead(lambda _: b"no JSON"),
        serving.trickling,
    ],
    ids=["failing", "missing", "broken", "trickling"],
)
def test_tab_offers_nothing_when_the_server_is_ill(
    server: serving.Server, fault: serving.Behaviour
) -> None:
    server.faults[INDEX] = fault
    assert encoder_names(server.url) == []


def test_tab_does_not_wait_for_a_server_that_hangs(server: serving.Server) -> None:
    """Had it waited, it would not come back: the server answers afterwards."""
    release = Event()
    server.faults[INDEX] = hanging(release)
    try:
        assert encoder_names(server.url) == []
    finally:
        release.set()


def test_whatever_breaks_tab_is_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> Callable[..., None]:
        raise RuntimeError("a bug")

    monkeypatch.setattr("zoo.collection.opening.open_source", broken)
    assert encoder_names(None) == []
    assert capsys.readouterr() == ("", "")
