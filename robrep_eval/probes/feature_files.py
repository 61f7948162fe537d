"""Features in memory-mapped files, so that they need not fit in memory.

    FOLDER/KEY/00000000.safetensors   of the first `PART` images, and so on

KEY is a hash of the encoder's weights and of how it is used, of the images as the
encoder sees them, and of the number format. Each file says it again, with a hash of its
numbers; a file that is of anything else, or damaged, is made again. A process that is
killed loses the part that it was in. Several probes, penalties, label shares and runs
use the same files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from robrep_eval.probes.team import ALONE, Team
from zoo.datasets.base import Dataset
from zoo.encoder import fingerprint
from zoo.errors import UserError
from zoo.files import read_tensors, write_tensors
from zoo.layout import ON_CPU, Layout
from zoo.threads import fitting_threads, network_work

PART = 4096
"""Images of a file."""
FORMATS = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class FeatureFiles:
    """Where features are kept, and in which format."""

    folder: Path
    format: str = "float32"
    """One of `FORMATS`."""

    def key(self, encoder: nn.Module, data: Dataset) -> str:
        """Hex SHA-256 of what decides the features."""
        module = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(encoder))
        words = (fingerprint(encoder), module, data.fingerprint(), self.format)
        return hashlib.sha256("|".join(words).encode()).hexdigest()

    def complete(self, encoder: nn.Module, data: Dataset) -> bool:
        """Whether all features are there already, as far as names tell."""
        own = self.folder / self.key(encoder, data)[:16]
        return all(path.exists() for path in _paths(own, len(data)))


def extract(
    encoder: nn.Module,
    data: Dataset,
    files: FeatureFiles,
    layout: Layout = ON_CPU,
    team: Team = ALONE,
) -> list[Tensor]:
    """Features of all images, part by part, mapped from files.

    Args:
        encoder: In eval mode, where `layout` says.
        data: Images (N, C, H, W).
        files: Where they are kept; what is there already is not made again.
        layout: Device and images per forward pass.
        team: Processes that share the parts out.

    Raises:
        UserError: a feature is NaN, infinite, or beyond float16; the disk is full.
    """
    key = files.key(encoder, data)
    paths = _paths(files.folder / key[:16], len(data))
    for number in team.each(len(paths), f"features {key[:16]}"):
        if _read(paths[number], key, files, _rows(number, len(data))) is None:
            part = data.subset(slice(number * PART, (number + 1) * PART))
            z = torch.cat(list(passes(encoder, part, layout))).to(FORMATS[files.format])
            check_finite(z)
            _write(paths[number], key, z)
    found = [
        _read(path, key, files, _rows(number, len(data)))
        for number, path in enumerate(paths)
    ]
    return [part for part in found if part is not None]


def passes(encoder: nn.Module, data: Dataset, layout: Layout) -> Iterator[Tensor]:
    """Features (n, d) of each batch, float32 on the CPU."""
    encoder.eval()
    with torch.no_grad(), fitting_threads(network_work(encoder, data.shape)):
        for x in data.batches(layout):
            yield encoder(x).float().cpu()


def check_finite(z: Tensor) -> None:
    """Raises `UserError` if a feature of (N, d) is NaN or infinite."""
    finite = z.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise UserError(
            "the encoder gives NaN or infinite features for "
            f"{int((~finite).sum())} of {len(z)} images; it cannot be probed"
            + " with features kept as float16"
            * (z.dtype is torch.float16)
        )


def _paths(folder: Path, count: int) -> list[Path]:
    starts = range(0, count, PART)
    return [folder / f"{start:08d}.safetensors" for start in starts]


def _write(path: Path, key: str, z: Tensor) -> None:
    try:
        write_tensors(path, {"features": z}, {"key": key, "sha256": _hash(z)})
    except OSError as error:
        raise UserError(
            f"features cannot be kept in {path.parent}: {error.strerror}; name another "
            "folder (--features), or keep them as float16 (--feature-format)"
        ) from None


def _rows(number: int, count: int) -> int:
    """Images of a part."""
    return min(PART, count - number * PART)


def _read(path: Path, key: str, files: FeatureFiles, rows: int) -> Tensor | None:
    """A part, mapped; None if it is not there, of something else, or damaged."""
    if not path.exists():
        return None
    try:
        tensors, said = read_tensors(path)
    except UserError:
        return None
    z = tensors.get("features")
    if z is None or said.get("key") != key or said.get("sha256") != _hash(z):
        return None
    form = z.dtype is FORMATS[files.format] and z.ndim == 2 and len(z) == rows
    return z if form and bool(z.isfinite().all()) else None


def _hash(z: Tensor) -> str:
    numbers: memoryview = z.contiguous().view(torch.uint8).numpy().data
    return hashlib.sha256(numbers).hexdigest()
