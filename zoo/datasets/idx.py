"""The IDX format of the MNIST family, plain or gzipped.

torchvision refuses files that were compressed again (its MD5 check), such as those
of Debian's `dataset-fashion-mnist`; the format itself is a header and raw bytes.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo import budgets
from zoo.errors import UserError

UNSIGNED_BYTE = 8
MAX_RANK = 8


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Reads an array of unsigned bytes of any rank.

    Raises:
        UserError: truncated, not IDX, or not of bytes; names the file.
    """
    try:
        budgets.regular(path)
        packed = path.suffix == ".gz"
        with gzip.open(path) if packed else path.open("rb") as stream:
            return _read(stream, path)
    except UserError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}; get the file again") from None


def _read(
    stream: gzip.GzipFile | io.BufferedReader, path: Path
) -> npt.NDArray[np.uint8]:
    """Reads no more than the header says, however much would come."""
    magic = stream.read(4)
    rank = magic[3] if len(magic) == 4 else 0
    sides = stream.read(4 * rank)
    known = magic[:3] == bytes((0, 0, UNSIGNED_BYTE)) and 0 < rank <= MAX_RANK
    if not known or len(sides) != 4 * rank:
        raise UserError(f"{path} is not an IDX file of bytes; get the file again")
    shape = [int(side) for side in np.frombuffer(sides, ">u4")]
    size = math.prod(shape)
    with budgets.naming(path):
        budgets.check(size, budgets.ARRAY_BYTES, "bytes by its header")
    body = stream.read(size + 1)
    if len(body) != size:
        found = f"more than {size}" if len(body) > size else f"{len(body)}"
        raise UserError(
            f"{path} holds {found} bytes where its header says {size}; get the file "
            "again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def find_idx(folders: list[Path], stem: str) -> Path | None:
    """The first `stem` or `stem.gz` in these folders."""
    for folder in folders:
        for suffix in ("", ".gz"):
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    return None
