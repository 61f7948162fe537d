"""A result with its columns as one piece of JSON, for tests that tamper with it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from zoo.columns import take
from zoo.files import write_json
from zoo.records import Result
from zoo.result_file import PATTERN, read_result


def read_whole(folder: Path) -> dict[str, Any]:
    """The record in `folder` with its columns inside."""
    content = read_result(folder).model_dump(mode="json")
    content["measurements"] = {
        name: found for name, found in content["measurements"].items() if found
    }
    return content


def write_whole(folder: Path, content: dict[str, Any]) -> None:
    """Writes what `read_whole` gave, changed: no field is checked, all hashes agree."""
    for old in folder.glob(PATTERN):
        old.unlink()
    rest = {**content, "examples": dict(content["examples"])}
    body = take(rest, Result)
    digest = hashlib.sha256(body).hexdigest()
    name = f"columns-{digest[:8]}.safetensors"
    (folder / name).write_bytes(body)
    rest["columns"] = {"file": name, "file_sha256": digest}
    write_json(folder / "result.json", rest)
