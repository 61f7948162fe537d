"""The IDX format of the MNIST family, plain or gzipped.

torchvision refuses files that were compressed again (its MD5 check), such as those
of Debian's `dataset-fashion-mnist`; the format itself is a header and raw bytes.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.errors import UserError

UNSIGNED_BYTE = 8


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Reads an array of unsigned bytes of any rank.

    Raises:
        UserError: truncated, not IDX, or not of bytes; names the file.
    """
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}; get the file again") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != UNSIGNED_BYTE:
        raise UserError(f"{path} is not an IDX file of bytes; get the file again")
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4).astype(np.int64)
    start = 4 + 4 * rank
    if len(raw) - start != shape.prod():
        raise UserError(
            f"{path} holds {len(raw) - start} bytes where its header says "
            f"{shape.prod()}; get the file again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def find_idx(folders: list[Path], stem: str) -> Path | None:
    """The first `stem` or `stem.gz` in these folders."""
    for folder in folders:
        for suffix in ("", ".gz"):
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    return None
