"""Downloads from a real server that serves well, badly, slowly, or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import serving
from serving import Behaviour, Server, after

from zoo.collection.download import Patience, download, get_small
from zoo.collection.index import FileRecord
from zoo.errors import RobrepError, UserError

CONTENT = hashlib.shake_128(b"weights").digest(300_000)
PATIENT = Patience(attempts=3, pause=0.01)
"""Waits longer than any busy machine makes a good server wait."""
UNTIL_SILENT = replace(PATIENT, read=0.3)
UNTIL_SLOW = replace(PATIENT, window=0.2, slowest=1000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "www"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    with serving.serving(root) as running:
        yield running


@pytest.fixture
def record(server: Server) -> FileRecord:
    return FileRecord.of(server.root, "file")


def get(
    server: Server, target: Path, record: FileRecord, patience: Patience = PATIENT
) -> Path:
    return download(f"{server.url}/file", target, record, patience=patience)


def left(folder: Path) -> set[str]:
    """What lies in a folder, locks apart."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize(
    "behaviour",
    [
        serving.ranged,
        serving.whole,
        after(1, serving.cut(0.5)),
        after(2, serving.cut(0.3)),
        after(1, serving.cut(0.5), serving.whole),
        after(1, serving.status(503)),
        after(1, serving.status(429)),
    ],
    ids=[
        "well",
        "no ranges",
        "cut once",
        "cut twice",
        "cut, then no ranges",
        "failing once",
        "busy once",
    ],
)
def test_arrives_whole(
    server: Server, tmp_path: Path, record: FileRecord, behaviour: Behaviour
) -> None:
    server.faults["file"] = behaviour
    target = get(server, tmp_path / "cache" / "file", record)
    assert target.read_bytes() == CONTENT
    assert left(target.parent) == {"file"}


def test_a_server_that_was_silent_is_asked_again(
    server: Server, tmp_path: Path, record: FileRecord
) -> None:
    server.faults["file"] = after(1, serving.silent)
    target = get(server, tmp_path / "file", record, replace(PATIENT, read=2))
    assert target.read_bytes() == CONTENT
    assert len(server.requests) >= 2


def test_a_cut_download_goes_on_where_it_stopped(
    server: Server, tmp_path: Path, record: FileRecord
) -> None:
    server.faults["file"] = after(1, serving.cut(0.5))
    get(server, tmp_path / "cache" / "file", record)
    assert [asked for _, asked in server.requests] == ["", "bytes=150000-"]


def test_a_later_call_goes_on(
    server: Server, tmp_path: Path, record: FileRecord
) -> None:
    server.faults["file"] = after(
        3, serving.cut(0.5), after(9, serving.status(500), serving.ranged)
    )
    target = tmp_path / "cache" / "file"
    with pytest.raises(RobrepError, match=r"3 attempts.*goes on from here"):
        get(server, target, record)
    assert left(target.parent) == {"file.part"}
    server.faults.clear()
    server.requests.clear()
    assert get(server, target, record).read_bytes() == CONTENT
    assert server.requests == [("file", "bytes=262500-")]


@pytest.mark.parametrize(
    ("behaviour", "error", "message"),
    [
        (serving.status(404), UserError, "is not there"),
        (serving.status(403), UserError, "403"),
        (serving.status(500), RobrepError, "3 attempts: the server answered 500"),
        (serving.status(418), RobrepError, "418"),
        (serving.instead(lambda c: c[:-1] + b"!"), UserError, "SHA-256"),
        (serving.instead(lambda c: c + b"more"), UserError, "larger than the 300000"),
        (serving.instead(lambda c: c[:1000]), RobrepError, "ended after 1000 of"),
        (serving.endless, UserError, "larger than the 300000"),
        (serving.redirect("/file"), RobrepError, "in a circle"),
        (serving.redirect("http://example.invalid/file"), UserError, "https only"),
        (serving.redirect("ftp://example.invalid/file"), RobrepError, "refused|ftp"),
    ],
)
def test_failures_are_clear_and_leave_nothing_wrong(
    server: Server,
    tmp_path: Path,
    record: FileRecord,
    behaviour: Behaviour,
    error: type[Exception],
    message: str,
) -> None:
    fails(server, tmp_path, record, behaviour, error, message, PATIENT)


@pytest.mark.parametrize(
    ("behaviour", "message", "patience"),
    [
        (serving.silent, "sent nothing", UNTIL_SILENT),
        (serving.trickling, "too slow", UNTIL_SLOW),
    ],
)
def test_a_server_that_keeps_us_waiting_is_given_up(
    server: Server,
    tmp_path: Path,
    record: FileRecord,
    behaviour: Behaviour,
    message: str,
    patience: Patience,
) -> None:
    fails(server, tmp_path, record, behaviour, RobrepError, message, patience)


def fails(
    server: Server,
    tmp_path: Path,
    record: FileRecord,
    behaviour: Behaviour,
    error: type[Exception],
    message: str,
    patience: Patience,
) -> None:
    """The download says so, leaves nothing wrong, and succeeds on a good server."""
    server.faults["file"] = behaviour
    target = tmp_path / "cache" / "file"
    with pytest.raises(error, match=message):
        get(server, target, record, patience)
    assert not target.exists()
    assert left(target.parent) <= {"file.part"}
    server.faults.clear()
    assert get(server, target, record).read_bytes() == CONTENT


def test_a_wrong_part_is_not_kept(
    server: Server, tmp_path: Path, record: FileRecord
) -> None:
    target = tmp_path / "cache" / "file"
    target.parent.mkdir()
    part = target.with_name("file.part")
    part.write_bytes(b"?" * 1000)
    with pytest.raises(UserError, match="SHA-256"):
        get(server, target, record)
    assert left(target.parent) == set()
    assert get(server, target, record).read_bytes() == CONTENT
    part.write_bytes(b"?" * (len(CONTENT) + 1))
    target.unlink()
    assert get(server, target, record).read_bytes() == CONTENT


def test_another_range_than_asked_for_is_refused(
    server: Server, tmp_path: Path, record: FileRecord
) -> None:
    def shifted(handler: serving.Handler, content: bytes) -> None:
        span = f"bytes 0-{len(content) - 1}/{len(content)}"
        handler.begin(206, len(content), Content_Range=span)
        handler.wfile.write(content)

    server.faults["file"] = after(1, serving.cut(0.5), shifted)
    with pytest.raises(RobrepError, match=r"range|larger"):
        get(server, tmp_path / "cache" / "file", record)


def test_nobody_listening(tmp_path: Path) -> None:
    record = FileRecord(path="file", sha256="0" * 64, size=1)
    with pytest.raises(RobrepError, match="connection failed"):
        download("http://127.0.0.1:9/file", tmp_path / "file", record, patience=PATIENT)


def test_plain_http_to_another_machine_is_refused(tmp_path: Path) -> None:
    record = FileRecord(path="file", sha256="0" * 64, size=1)
    with pytest.raises(UserError, match="https only"):
        download("http://example.invalid/file", tmp_path / "file", record)


def test_an_index_is_bounded_in_size(server: Server) -> None:
    assert get_small(f"{server.url}/file", 300_000, PATIENT) == CONTENT
    for behaviour in (serving.whole, serving.endless):
        server.faults["file"] = behaviour
        with pytest.raises(UserError, match="larger than 1000 bytes"):
            get_small(f"{server.url}/file", 1000, PATIENT)


def test_two_processes_share_one_download(
    server: Server, tmp_path: Path, record: FileRecord
) -> None:
    server.faults["file"] = after(1, serving.cut(0.5))  # so that the first one waits
    target = tmp_path / "cache" / "file"
    code = (
        "import sys; from pathlib import Path\n"
        "from zoo.collection.download import download\n"
        "from zoo.collection.index import FileRecord\n"
        "record = FileRecord.model_validate_json(sys.argv[3])\n"
        "download(sys.argv[1], Path(sys.argv[2]), record)\n"
    )
    command = [sys.executable, "-c", code, f"{server.url}/file", str(target)]
    both = [subprocess.Popen([*command, record.model_dump_json()]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert target.read_bytes() == CONTENT
    assert left(target.parent) == {"file"}
    sent = [asked for _, asked in server.requests]
    assert sent == ["", "bytes=150000-"]  # the second process asked for nothing


def test_progress_is_shown_where_somebody_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.progress import WORTH_A_BAR, byte_bar

    with byte_bar("quiet", WORTH_A_BAR) as report:
        report(1)
    assert capsys.readouterr() == ("", "")  # not a terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with byte_bar("[weights]", WORTH_A_BAR) as report:
        report(WORTH_A_BAR // 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "[weights]" in err
    assert "50" in err or "0.5" in err
