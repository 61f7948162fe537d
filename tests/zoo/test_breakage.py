"""Kills, full and read-only disks, broken records: one clear error, nothing half-done.

A kill is a real one: a forked child publishes files that are staged already, and ends
itself by SIGKILL before its n-th rename.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import commands
import pytest
import serving
from zoo_collection import ENTRY, Evaluated, add_encoder

from zoo.board.leaderboard import build
from zoo.collection import sources_embedded
from zoo.collection.audit import audit, plan
from zoo.collection.index import INDEX, FileRecord, scan
from zoo.collection.model_card import README
from zoo.collection.publish import Publication, _publish_to_folder, prepare, publish
from zoo.collection.sources import FolderSource
from zoo.commands.cli import cli
from zoo.commands.shell import run
from zoo.errors import UserError
from zoo.records import write_record
from zoo.submission.bundle import submit
from zoo.submission.info import Paper

NAME = "tiny-digits"


@pytest.fixture(scope="module")
def stage(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `publish` prepares for the second evaluation: verified, not published."""
    folder = tmp_path_factory.mktemp("stage")
    prepare(
        Publication(runs=[evaluated.other_run], source=str(evaluated.plain)), folder
    )
    return folder


def killed_at(rename: int, stage: Path, root: Path) -> bool:
    """Publishes in a child that kills itself before a rename; whether it came to it."""
    child = os.fork()
    if not child:
        genuine, count = Path.replace, iter(range(rename))

        def replace(path: Path, target: Path) -> Path:
            if next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return genuine(path, target)

        Path.replace = replace  # type: ignore[method-assign, assignment]
        try:
            _publish_to_folder(stage, NAME, root)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def left_over(root: Path) -> list[Path]:
    """Files of writers that did not finish."""
    return [p for p in root.rglob(".*") if p.is_file() and p.suffix != ".lock"]


@pytest.mark.parametrize("before", ["nothing", "an entry"])
def test_a_killed_publisher_leaves_a_collection_that_holds(
    evaluated: Evaluated, stage: Path, tmp_path: Path, before: str
) -> None:
    root, rename, killed = tmp_path / "zoo", 0, True
    while killed:
        shutil.rmtree(root, ignore_errors=True)
        if before == "an entry":
            evaluated.copy(root)
        own = tmp_path / f"stage-{rename}"
        shutil.copytree(stage, own)
        killed = killed_at(rename, own, root)
        source = FolderSource(root)
        found = [audit(source, item, data_dir=None) for item in plan(source, None)]
        reasons = [str(audit.reason) for audit in found if not audit.holds]
        # The page for people is renamed just before the index that seals it.
        assert all(README in reason for reason in reasons), reasons
        rename += 1
    assert rename > 6
    assert len(found) == (2 if before == "nothing" else 3)
    assert not left_over(root)


@pytest.mark.slow
def test_what_a_killed_publisher_left_in_the_temporary_folder_goes(
    tmp_path: Path,
) -> None:
    scratch, run = tmp_path / "tmp", tmp_path / "run"
    others = [f"robrep-publish-{os.getpid()}-abc", "robrep-publish-mine", "mine"]
    for name in others:
        (scratch / name).mkdir(parents=True)
    embedded = Path(sources_embedded.__file__).parents[1] / "embedded" / "tarrl-digits"
    run.mkdir()
    for name in ("card.json", "model.safetensors"):
        shutil.copyfile(embedded / name, run / name)
    words = ("zoo", "publish", str(run), "--to", str(tmp_path / "zoo"))
    publisher = commands.start(*words, TMPDIR=str(scratch))
    own = f"robrep-publish-{publisher.pid}-*"
    commands.until(lambda: any(scratch.glob(own)), publisher)
    publisher.kill()
    commands.finish(publisher)
    assert publisher.returncode == -signal.SIGKILL
    assert len(list(scratch.glob(own))) == 1
    code, _, err = commands.run(*words, TMPDIR=str(scratch))
    assert code == 0, err
    assert {path.name for path in scratch.iterdir()} == set(others)


def test_the_next_publisher_cleans_up(
    evaluated: Evaluated, stage: Path, tmp_path: Path
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    for name in ("first", "second"):
        shutil.copytree(stage, tmp_path / name)
    # Renamed before: the note on the serial of the index, and pages of the stage.
    assert killed_at(4, tmp_path / "first", root)
    assert left_over(root)
    assert not killed_at(99, tmp_path / "second", root)
    assert not left_over(root)
    source = FolderSource(root)
    assert all(audit(source, item, data_dir=None).holds for item in plan(source, None))


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.mark.parametrize("copies", [0, 1, 5, 8])
def test_a_full_disk_leaves_everything_as_it_was(
    evaluated: Evaluated,
    stage: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    copies: int,
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    own = Path(shutil.copytree(stage, tmp_path / "stage"))
    before = contents(root)
    genuine, count = shutil.copyfile, iter(range(copies))

    def full(origin: Path, target: Path) -> Path:
        if next(count, None) is None:
            Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return genuine(origin, target)

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        _publish_to_folder(own, NAME, root)
    assert str(caught.value.filename).startswith(str(root))
    assert contents(root) == before


def ended(args: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["robrep-zoo", *map(str, args)])
        with pytest.raises(SystemExit) as left:
            run(cli, "robrep-zoo")
    return int(str(left.value.code or 0)), capsys.readouterr().err


def test_a_read_only_target(
    evaluated: Evaluated,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "zoo"
    genuine = os.mkdir

    def read_only(path: str | Path, *args: int, **more: int) -> None:
        if str(path).startswith(str(target)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        genuine(path, *args, **more)

    monkeypatch.setattr("os.mkdir", read_only)
    args = ["publish", evaluated.run, "--to", target, "--source", evaluated.plain]
    assert ended(args, capsys) == (1, f"Error: Read-only file system ({target})\n")


def limited(limit: int, home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that cannot write larger files than `limit` bytes."""

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "zoo", *args],
        capture_output=True,
        text=True,
        env={**os.environ, "ROBREP_HOME": str(home)},
        preexec_fn=small if limit else None,
    )


def test_a_download_that_does_not_fit_goes_on_later(tmp_path: Path) -> None:
    root, home = tmp_path / "zoo", tmp_path / "home"
    add_encoder(root, NAME)
    write_record(root / INDEX, scan(root))
    weights = (root / NAME / "model.safetensors").stat().st_size
    assert (root / INDEX).stat().st_size < weights - 100
    with serving.serving(root) as server:
        args = ["download", NAME, "--source", server.url]
        done = limited(weights - 100, home, *args)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("Error: File too large (")
        assert line.endswith("model.safetensors.part)")
        assert not list(home.rglob("model.safetensors"))
        server.requests.clear()
        assert limited(0, home, *args).returncode == 0
        asked = dict(server.requests)[f"{NAME}/model.safetensors"]
    assert asked == f"bytes={weights - 100}-"


def test_a_killed_download_goes_on_where_it_was(tmp_path: Path) -> None:
    content = os.urandom(200_000)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "file").write_bytes(content)
    record = FileRecord.of(tmp_path / "web", "file")
    target = tmp_path / "cache" / "file"

    def stuck(handler: serving.Handler, whole: bytes) -> None:
        handler.begin(200, len(whole))
        handler.wfile.write(whole[:150_000])
        handler.wfile.flush()
        time.sleep(30)

    code = (
        "import sys; from pathlib import Path\n"
        "from zoo.collection.download import download\n"
        "from zoo.collection.index import FileRecord\n"
        "record = FileRecord.model_validate_json(sys.argv[3])\n"
        "download(sys.argv[1], Path(sys.argv[2]), record)\n"
    )
    with serving.serving(tmp_path / "web") as server:
        command = [sys.executable, "-c", code, f"{server.url}/file", str(target)]
        command.append(record.model_dump_json())
        server.faults["file"] = stuck
        process = subprocess.Popen(command)
        part = target.with_name("file.part")
        while not part.exists() or part.stat().st_size < 100_000:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert not target.exists()
        have = part.stat().st_size
        server.faults.clear()
        subprocess.run(command, check=True)
        assert server.requests[-1] == ("file", f"bytes={have}-")
    assert target.read_bytes() == content


Change = Callable[[dict[str, object]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.pop("sha256"), "sha256: Field required"),
        (lambda card: card.pop("training"), "training: Field required"),
        (lambda card: card.update(dim=None), "dim: "),
        (lambda card: card.update(extra=1), "extra: "),
        (lambda card: card.pop("schema_version"), "schema version None"),
        (lambda card: card["training"].update(passes=float("nan")), "NaN"),
        (lambda card: card["training"].update(recipe={"eps": float("inf")}), "Inf"),
    ],
)
@pytest.mark.parametrize("indexed", [False, True])
def test_a_broken_card_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    message: str,
    indexed: bool,
) -> None:
    add_encoder(tmp_path, "broken")
    add_encoder(tmp_path, "sound", seed=1)
    path = tmp_path / "broken" / "card.json"
    card = json.loads(path.read_text())
    if indexed:
        path = tmp_path / INDEX
        write_record(path, scan(tmp_path))
        index = json.loads(path.read_text())
        change(index["encoders"][0]["card"])
        if message == "schema version None":
            pytest.skip("within an index it has its default")
        path.write_text(json.dumps(index))
    else:
        change(card)
        path.write_text(json.dumps(card))
    code, text = ended(["list", "--source", tmp_path], capsys)
    assert code == (2 if indexed else 1)  # of a broken index nothing is read
    assert message in text
    assert str(path) in text
    assert text.count("\n") == 1


def test_numbers_beyond_all_bounds_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_encoder(tmp_path, "broken")
    path = tmp_path / "broken" / "card.json"
    path.write_text(path.read_text().replace('"seed": null', '"seed": 1e999'))
    _, text = ended(["list", "--source", tmp_path], capsys)
    assert "1e999 is not a finite number" in text


def test_a_card_without_its_weights_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_encoder(tmp_path, "broken")
    (tmp_path / "broken" / "model.safetensors").unlink()
    code, text = ended(["list", "--source", tmp_path], capsys)
    assert code == 1
    assert "broken lists no file model.safetensors" in text


def test_one_broken_entry_does_not_hide_the_others(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    root = evaluated.copy(tmp_path / "zoo")
    request = Publication(runs=[evaluated.other_run], source=str(evaluated.plain))
    publish(request, str(root))
    (root / NAME / "entries" / ENTRY / "result.json").write_text("{}")
    board = build(FolderSource(root))
    assert [row.reference for row in board.rows] == [
        f"{NAME}/digits-l2-0.01-slf-v2-fgsm"
    ]
    (reason,) = board.left_out.values()
    assert "result.json has 2 bytes" in reason


def test_a_bundle_is_written_whole_or_not_at_all(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".pt":
            genuine(path, b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return genuine(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    output = tmp_path / "bundles" / "bundle"
    with pytest.raises(OSError, match="No space"):
        submit(
            FolderSource(evaluated.published),
            f"{NAME}/{ENTRY}",
            Paper(),
            output=output,
            draft=True,
        )
    assert list(output.parent.iterdir()) == []


def test_a_publisher_without_evidence_says_so(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(evaluated.run, folder)
    (folder / "adversarials.safetensors").unlink()
    request = Publication(runs=[folder], source=str(evaluated.plain))
    with pytest.raises(UserError, match=r"no file .*adversarials\.safetensors"):
        publish(request, str(tmp_path / "zoo"))
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("name", ["../evil", "Upper", "a/b", "", "x" * 97, ".hidden"])
def test_names_that_lead_elsewhere_are_refused(
    evaluated: Evaluated,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"")
    target = tmp_path / "zoo"
    args = ["import", checkpoint, "--format", "acl", "--name", name, "--to", target]
    code, text = ended(args, capsys)
    assert code == 2
    assert f"'{name}' cannot name an encoder" in text
    if name:
        args = ["publish", evaluated.run, "--source", evaluated.plain, "--to", target]
        code, text = ended([*args, "--entry", name], capsys)
        assert code == 2
        assert f"'{name}' cannot name an entry" in text
    assert not target.exists()
