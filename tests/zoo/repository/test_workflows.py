"""The workflows of a repository of results, step by step, in real repositories."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from zoo_collection import Evaluated

from zoo.collection.publish import Publication
from zoo.repository.adding import add, start

ROOT = Path(__file__).parents[3]


def workflow(root: Path, name: str) -> dict[str, Any]:
    text = (root / ".github" / "workflows" / f"{name}.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def script(content: dict[str, Any], job: str, step: str) -> str:
    steps = content["jobs"][job]["steps"]
    return str(next(s["run"] for s in steps if s.get("name") == step))


def run(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", code],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


def git(folder: Path, *words: str) -> None:
    names = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def merged(evaluated: Evaluated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout as the host makes it: the merge of a change that adds a result."""
    root = tmp_path_factory.mktemp("work") / "results"
    start(root)
    add(Publication(runs=[evaluated.run], source=str(evaluated.plain)), root)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=before")
    git(root, "switch", "--quiet", "--create=change")
    add(Publication(runs=[evaluated.other_run], source=str(evaluated.plain)), root)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=change")
    git(root, "switch", "--quiet", "main")
    git(root, "merge", "--quiet", "--no-ff", "--message=merge", "change")
    return root


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs, with this tree's robrep-zoo."""
    folder = tmp_path / "programs"
    folder.mkdir()
    ours = f"exec {shlex.quote(sys.executable)} -m zoo"
    (folder / "robrep-zoo").write_text(f'#!/bin/bash\n{ours} "$@"\n')
    (folder / "robrep-zoo").chmod(0o755)
    return folder


def _path(programs: Path) -> dict[str, str]:
    python = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": python,
    }


@pytest.mark.slow
def test_verify_checks_what_the_merge_adds(
    merged: Path, programs: Path, tmp_path: Path
) -> None:
    content = workflow(merged, "verify")
    assert content["permissions"] == {"contents": "read"}
    done = run(script(content, "verify", "verify"), merged, **_path(programs))
    assert done.returncode == 0, done.stderr
    told = merged.parent / "told"
    assert "1 new result holds" in (told / "comment.md").read_text()
    summary = tmp_path / "summary.md"
    tell = script(content, "verify", "tell")
    done = run(tell, merged, NUMBER="7", GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stderr
    assert summary.read_text() == (told / "comment.md").read_text()
    assert (told / "number").read_text() == "7\n"


GH = """#!/bin/bash
case "$1 $2" in
  "run download") mkdir told; echo "$TOLD" > told/number; echo text > told/comment.md;;
  "pr view") echo "$REAL";;
  "pr comment") echo "$@" > commented; cat comment.md >> commented;;
esac
"""


@pytest.mark.parametrize(
    ("number", "head", "speaks"),
    [("7", "abc", True), ("7", "other", False), ("7; echo", "abc", False)],
)
def test_comment_speaks_on_the_change_alone(
    merged: Path,
    programs: Path,
    tmp_path: Path,
    number: str,
    head: str,
    speaks: bool,
) -> None:
    (programs / "gh").write_text(GH)
    (programs / "gh").chmod(0o755)
    folder = tmp_path / "empty"
    folder.mkdir()
    code = script(workflow(merged, "comment"), "comment", "comment")
    env = {"RUN": "1", "HEAD": "abc", "TOLD": number, "REAL": head, **_path(programs)}
    done = run(code, folder, **env)
    assert (done.returncode == 0) is speaks
    assert (folder / "commented").is_file() is speaks
    if speaks:
        assert (folder / "commented").read_text().startswith("pr comment 7 --body-file")


def test_scripts_take_nothing_of_the_change_as_code(merged: Path) -> None:
    """A host puts the values of ${{ }} into a script before a shell reads it."""
    for name in ("verify", "comment"):
        for job in workflow(merged, name)["jobs"].values():
            assert not [s for s in job["steps"] if "${{" in s.get("run", "")]
