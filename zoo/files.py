"""Reading and writing that leaves nothing half-written and runs no foreign code."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary neighbour of `path` and renames it when the block succeeds.

    A reader sees the old content or the new, never a part; a failure or kill leaves
    the old content. The data reach the disk before the name does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON atomically; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON; raises `UserError` that names the file if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error})") from None


def copy_file(origin: Path, path: Path) -> None:
    """Copies a file atomically."""
    with atomic(path) as temporary:
        shutil.copyfile(origin, temporary)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Writes tensors as safetensors, atomically, with JSON-encoded metadata."""
    from safetensors.torch import save_file

    contiguous = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    encoded = {k: json.dumps(v, sort_keys=True) for k, v in metadata.items()}
    with atomic(path) as temporary:
        save_file(contiguous, temporary, metadata=encoded)


def write_rows(
    path: Path,
    columns: Mapping[str, Tensor],
    name: str,
    rows: Iterable[Tensor],
    shape: tuple[int, ...],
) -> None:
    """Writes safetensors whose one large float32 tensor comes in parts, atomically.

    No more than one part is in memory at a time.

    Args:
        path: The file.
        columns: Small tensors, written whole.
        name: Of the large one.
        rows: Its parts, along the first dimension.
        shape: Of all of it.

    Raises:
        ValueError: the parts do not add up to `shape`.
    """
    import torch
    from safetensors.torch import save

    # A large tensor without rows gives the header; its true size is filled in below.
    small = {k: v.detach().cpu().contiguous() for k, v in columns.items()}
    body = save({**small, name: torch.zeros(0, *shape[1:])})
    length = int.from_bytes(body[:8], "little")
    header, data = json.loads(body[8 : 8 + length]), body[8 + length :]
    size = 4 * math.prod(shape)
    header[name] |= {"shape": list(shape), "data_offsets": [0, size]}
    for key in small:
        header[key]["data_offsets"] = [o + size for o in header[key]["data_offsets"]]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for part in rows:
            size -= stream.write(part.contiguous().float().numpy().tobytes())
        if size:
            raise ValueError(f"{name}: {size} bytes are missing of shape {shape}")
        stream.write(data)
        stream.flush()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a safetensors file and its metadata.

    Raises:
        UserError: missing, truncated, or not safetensors at all.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        with safe_open(path, framework="pt") as stream:
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - not a dict
            raw = stream.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from None
    return tensors, {key: _decode(value) for key, value in raw.items()}


def _decode(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value  # metadata that another program wrote as plain text
