"""A file of a collection that lies in pieces, where one may have a few MB at most.

`model.safetensors` is then `model.safetensors.piece-1-of-4` and so on, one after the
other the same bytes. An index lists the whole file alone: its size and its checksum are
those of all pieces together. Imports no torch.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from zoo.errors import UserError
from zoo.files import atomic
from zoo.paths import home

_PIECE = re.compile(r"(.+)\.piece-([1-9]\d*)-of-([1-9]\d*)")
BLOCK = 1 << 20


def whole_name(name: str) -> str:
    """The name of the file that a piece belongs to; another name as it is."""
    found = _PIECE.fullmatch(name)
    return found[1] if found else name


def pieces(path: Path) -> list[Path]:
    """What holds the bytes of a file, in order: itself, or its pieces; or nothing.

    Raises:
        UserError: a piece is missing, or there are two sets of them.
    """
    if path.is_file() or not path.parent.is_dir():
        return [path] if path.is_file() else []
    found = {
        (int(match[3]), int(match[2])): other
        for other in path.parent.iterdir()
        if (match := _PIECE.fullmatch(other.name)) and match[1] == path.name
        if other.is_file() and not other.is_symlink()
    }
    if not found:
        return []
    count = max(count for count, _ in found)
    if sorted(found) != [(count, number) for number in range(1, count + 1)]:
        raise UserError(
            f"{path} lies in pieces, {len(found)} of them, and should be pieces 1 to "
            f"{count} of {count}; get the folder again"
        )
    return [found[key] for key in sorted(found)]


def described(path: Path) -> tuple[str, int]:
    """Hex SHA-256 and size in bytes of a file, also of one in pieces."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces(path) or [path]:
        with piece.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
                size += len(block)
    return digest.hexdigest(), size


def whole(path: Path, sha256: str) -> Path:
    """The file itself, put together in the user's cache if it lies in pieces.

    Args:
        path: Where it should be.
        sha256: Names its place in the cache; what is there is not checked here.
    """
    if len(parts := pieces(path)) < 2:
        return parts[0] if parts else path
    target = home() / "zoo" / "pieces" / sha256[:16] / path.name
    if not target.is_file() or described(target)[0] != sha256:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as temporary, temporary.open("wb") as out:
            for part in parts:
                with part.open("rb") as stream:
                    shutil.copyfileobj(stream, out, BLOCK)
    return target


def cut(path: Path, size: int) -> list[Path]:
    """Puts pieces of at most `size` bytes beside a file, in its place.

    The file goes once all of them are written. One that is no larger stays as it is.
    """
    count = -(-path.stat().st_size // size)
    if count < 2:
        return [path]
    made = []
    with path.open("rb") as stream:
        for number in range(1, count + 1):
            made.append(path.with_name(f"{path.name}.piece-{number}-of-{count}"))
            with atomic(made[-1]) as temporary:
                temporary.write_bytes(stream.read(size))
    path.unlink()
    return made
