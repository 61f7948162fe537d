"""Reading and writing that leaves nothing half-written and runs no foreign code."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import budgets
from zoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


UMASK = os.umask(0o077)
"""Of this process: which permissions new files do not get."""
os.umask(UMASK)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary neighbour of `path` and renames it when the block succeeds.

    A reader sees the old content or the new, never a part; a failure or kill leaves
    the old content. The data reach the disk before the name does.

    Raises:
        OSError: a full or read-only disk; it names `path`.
    """
    with naming(path), _temporary(path) as temporary:
        yield temporary


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives `path` to errors of writes: the system knows their file by number only."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(path: Path) -> list[Path]:
    """What `atomic` left of `path` when it was killed, and nothing else."""
    ours = re.compile(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}")
    if not path.parent.is_dir():
        return []
    return [p for p in path.parent.iterdir() if ours.fullmatch(p.name) and p.is_file()]


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy_together(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Copies files, of which the last appears last.

    All are written under temporary names before the first is renamed: a full disk
    leaves everything as it was, and the time in which a kill could separate them is
    that of the renames.

    Args:
        pairs: (origin, path).
    """
    with ExitStack() as stack:
        for origin, path in reversed(pairs):  # what is entered last appears first
            temporary = stack.enter_context(atomic(path))
            shutil.copyfile(origin, temporary)
            with temporary.open("rb") as written:  # none is left for the renames
                os.fsync(written.fileno())


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON atomically; NaN is refused, as JSON has none."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON; raises `UserError` that names the file if it is missing or broken."""
    return parse_json(budgets.read_bytes(path, budgets.TEXT_BYTES), str(path))


def parse_json(content: bytes, name: str) -> Any:
    """Parses JSON in UTF-8; raises `UserError` that calls it `name` if it is broken.

    NaN, infinities, what is no Unicode and all that passes a budget (`zoo.budgets`)
    are refused here, before anything computes with them.
    """
    try:
        with budgets.naming(name):
            budgets.check_text(content)
            parsed = json.loads(
                content.decode("utf-8-sig"),
                parse_int=budgets.integer,
                parse_float=_finite,
                parse_constant=_finite,
                object_pairs_hook=_distinct,
            )
            budgets.check_values(parsed)
            return parsed
    except UserError:
        raise
    except RecursionError:
        raise UserError(
            f"{name} is refused: it is nested more than {budgets.DEPTH} deep"
        ) from None
    except ValueError as error:
        raise UserError(f"{name} is not valid JSON ({error})") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a key that is there twice, other readers may take the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"it says '{twice[:80]}' twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


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
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    encoded = {k: json.dumps(v, sort_keys=True) for k, v in metadata.items()}
    with atomic(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=encoded)
        except SafetensorError as error:  # that library's name for a failed write
            raise OSError(errno.EIO, str(error), str(path)) from None


def write_stream(
    path: Path,
    columns: Mapping[str, Tensor],
    name: str,
    parts: Iterable[Tensor],
    size: int,
) -> None:
    """Writes safetensors whose one large tensor, of bytes, comes in parts, atomically.

    No more than one part is in memory at a time.

    Args:
        path: The file.
        columns: Small tensors, written whole.
        name: Of the large one.
        parts: Its parts, uint8 (n,).
        size: Of all of them.

    Raises:
        ValueError: the parts do not add up to `size`.
    """
    import torch
    from safetensors.torch import save

    # An empty tensor, the last one, gives the header; its true size is filled in below.
    small = {k: v.detach().cpu().contiguous() for k, v in columns.items()}
    body = save({**small, name: torch.zeros(0, dtype=torch.uint8)})
    length = int.from_bytes(body[:8], "little")
    header, data = json.loads(body[8 : 8 + length]), body[8 + length :]
    header[name] |= {"shape": [size], "data_offsets": [len(data), len(data) + size]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text + data)
        for part in parts:
            size -= stream.write(part.contiguous().numpy().data)
        if size:
            raise ValueError(f"{name}: {size} bytes are missing")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a safetensors file and its metadata.

    Raises:
        UserError: missing, truncated, or not safetensors at all.
    """
    from safetensors import SafetensorError, safe_open

    budgets.check_header(path)
    try:
        with safe_open(path, framework="pt") as stream:
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - not a dict
            raw = stream.metadata() or {}
    except (SafetensorError, RuntimeError, ValueError, TypeError) as error:
        reason = budgets.plain_reason(error)
        raise UserError(f"{path} is not a safetensors file: {reason}") from None
    return tensors, {
        key: _decode(value, f"{path}: {key}") for key, value in raw.items()
    }


def _decode(value: str, name: str) -> Any:
    if not value.startswith(("{", "[")):
        with suppress(ValueError):
            return json.loads(value, parse_int=budgets.integer, parse_constant=_finite)
        return value  # metadata that another program wrote as plain text
    return parse_json(value.encode(), name)
