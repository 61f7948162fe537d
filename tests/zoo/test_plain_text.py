"""What other people wrote reaches neither the terminal nor a record as it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from zoo.errors import UserError
from zoo.locks import in_use
from zoo.plain_text import plain, plain_line, without_folders, without_secrets


def child(code: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs code in another Python."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **more},
    )


@pytest.mark.parametrize("mark", ["\x1b", "\x07", "\r", "\u202e", "\u2066", "\ud800"])
def test_no_character_steers_the_terminal(mark: str) -> None:
    assert plain(f"a{mark}b\nc") == "a\ufffdb\nc"
    assert plain_line(f"a{mark}b\nc") == "a\ufffdb c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://me:secret@host/zoo now", "see https://***@host/zoo now"),
        ("'https://host/x?token=secret'", "'https://host/x?***'"),
        ("hf://secret@ORG/REPO", "hf://***@ORG/REPO"),
        ("mail me@host, what?", "mail me@host, what?"),
    ],
)
def test_no_secret_of_an_address_is_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    ("word", "left"),
    [
        ("imagefolder:/home/me/x@3x32x32", "imagefolder:x@3x32x32"),
        ("--output=/home/me/runs/x", "--output=x"),
        ("~/a/model.pt", "model.pt"),
        ("8/255", "8/255"),
        ("https://host/p/q", "https://host/p/q"),
        ("runs/x", "runs/x"),
    ],
)
def test_no_path_of_this_machine_is_recorded(word: str, left: str) -> None:
    assert without_folders(word) == left


def test_no_folder_of_images_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "customer" / "acme").mkdir(parents=True)
    for word, left in (
        ("imagelist:customer/list.csv@3x8x8", "imagelist:list.csv@3x8x8"),
        ("--dataset=imagelist:customer/list.csv", "--dataset=imagelist:list.csv"),
        ("hf-datasets:customer/acme:validation", "hf-datasets:acme:validation"),
        ("digits,hf-datasets:customer/acme", "digits,hf-datasets:acme"),
        ("hf-datasets:somebody/public:test", "hf-datasets:somebody/public:test"),
        ("a=customer/acme", "a=acme"),
    ):
        assert without_folders(word) == left


def test_an_error_is_one_plain_line() -> None:
    done = child(
        """
        import rich_click as click
        from zoo.commands.shell import run
        from zoo.errors import UserError

        @click.command()
        def fail():
            raise UserError("\\x1b[2J[/x] data[v2]\\nhttps://u:secret@h\\u202e")

        run(fail, "x")
        """,
        PYTHONIOENCODING="utf-8",
    )
    assert done.returncode == 2
    assert done.stderr == "Error: \ufffd[2J[/x] data[v2] https://***@h\ufffd\n"


def test_interrupting_twice_shows_no_traceback() -> None:
    done = child(
        """
        import os, signal, sys
        import rich_click as click
        from zoo.commands import shell

        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by nohup

        @click.command()
        def work():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        import atexit
        atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
        shell.run(work, "x")
        """
    )
    assert done.returncode == 130
    assert done.stderr.strip().startswith("Error: interrupted")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_files_respect_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "x"
    done = child(
        f"""
        import os
        os.umask({umask})
        from pathlib import Path
        from zoo.files import write_text
        write_text(Path({str(path)!r}), "x")
        """
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o777 == mode


HOLD = """
    import sys
    from pathlib import Path
    from zoo.locks import in_use
    with in_use(Path(sys.argv[1])):
        print("in", flush=True)
        sys.stdin.read()
"""


def test_a_folder_is_used_by_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBREP_HOME", str(tmp_path / "home"))
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        reason = rf"run is in use by process {other.pid} since \d{{4}}-.*--wait"
        with pytest.raises(UserError, match=reason), in_use(folder):
            pass
        with in_use(tmp_path / "another"):
            pass
        other.send_signal(signal.SIGKILL)
        with in_use(folder, wait=True):
            assert not folder.exists()  # the lock lies elsewhere
