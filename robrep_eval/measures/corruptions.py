"""Accuracy under common corruptions: 15 kinds at 5 severities, no adversary.

Two sources, never to be confused: the official CIFAR-10-C / CIFAR-100-C arrays
(Hendrycks & Dietterich 2019, arXiv 1903.12261), where the user has them, and images
corrupted here by the package imagecorruptions-imaug, for any dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robrep_eval.measures.base import Finished, Measurement
from robrep_eval.randomness import seeded
from zoo.classifier import predict
from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.extras import how_to_get
from zoo.layout import ON_CPU, Layout
from zoo.measurements import CorruptionCell, Corruptions
from zoo.records import Proportion, Result

KINDS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
SEVERITIES = (1, 2, 3, 4, 5)
GENERATED = "generated"
ARRAYS = "official arrays"
BLOCK_IMAGES = 256
"""That are corrupted, and in memory, together."""
BLOCK = 10_000
"""Images of one severity in an official file."""
SMALLEST_SIDE = 32
"""The package's corruptions are made for photographs of at least this size."""
OFFICIAL = ("cifar10", "cifar100")


@dataclass(frozen=True, kw_only=True)
class CommonCorruptions(Measurement[Corruptions]):
    """Accuracy under common corruptions."""

    source: str = GENERATED
    """"generated", or the folder of the official arrays."""

    name: ClassVar[str] = "corruptions"
    record: ClassVar[type[Corruptions]] = Corruptions

    @classmethod
    def asked(cls, options: Mapping[str, Any]) -> Self | None:
        """--corruptions SOURCE."""
        source = options["corruptions"]
        return None if source is None else cls(source=source)

    def check(self, encoder: nn.Module | None, data: Dataset) -> None:
        """The package, or the arrays of this dataset, must be at hand."""
        check_source(data, self.source)

    def noted(self, finished: Finished) -> dict[str, Any]:
        """What the images are, wherever they lie."""
        if self.source == GENERATED:
            return {"source": _described(GENERATED), "seed": finished.result.seed}
        pixels = _fingerprint(finished.data, Path(self.source))
        return {"source": ARRAYS, "sha256": pixels}

    def said(self, record: Corruptions, finished: Finished) -> dict[str, Any]:
        """A record without settings is of the run's seed, or of unknown arrays."""
        older = {"source": record.source, "seed": finished.result.seed}
        return record.settings or older

    def make(
        self, finished: Finished, on_progress: Callable[[float], None]
    ) -> Corruptions:
        """All 75 cells."""
        return measure_corruptions(
            finished.classifier,
            finished.data,
            self.source,
            seed=finished.result.seed,
            layout=finished.layout,
        )

    @classmethod
    def told(cls, record: Corruptions, result: Result) -> str:
        """Which images these were, and the mean."""
        return (
            f"Common corruptions ({record.source}; no adversary): "
            f"{record.mean:.1%} on average over {len(record.cells)} cells."
        )


def measure_corruptions(
    classifier: nn.Module,
    data: Dataset,
    source: str,
    *,
    seed: int = 0,
    layout: Layout = ON_CPU,
) -> Corruptions:
    """Accuracy in each of the 75 cells and their mean.

    Args:
        classifier: Images to logits.
        data: Clean test images; for official arrays their positions choose the rows.
        source: "generated", or the folder that holds the official .npy files.
        seed: Of generated noise.
        layout: Where the classifier lives, and images per forward pass.

    Raises:
        UserError: the package or a file is missing, or the images are too small.
    """
    check_source(data, source)
    generated = source == GENERATED
    parts = _generated(data, seed) if generated else _official(data, Path(source))
    cells = []
    for kind, severity, blocks in parts:
        right = 0
        for images, y in zip(blocks, data.labels.split(BLOCK_IMAGES), strict=True):
            right += int((predict(classifier, images, layout).argmax(1) == y).sum())
        cells.append(
            CorruptionCell(
                corruption=kind,
                severity=severity,
                accuracy=Proportion.of(right, len(data)),
            )
        )
    return Corruptions(
        source=_described(source),
        official=not generated,
        mean=sum(cell.accuracy.value for cell in cells) / len(cells),
        cells=cells,
    )


def check_source(data: Dataset, source: str) -> None:
    """Raises `UserError` if these corruptions cannot be had for this dataset."""
    if source != GENERATED:
        _official_rows(data, Path(source))
        return
    _package()
    if min(data.shape[1:]) < SMALLEST_SIDE:
        raise UserError(
            f"common corruptions are made for images of at least {SMALLEST_SIDE} "
            f"pixels a side; those of {data.name} are {data.shape[1]}x{data.shape[2]}"
        )


def _described(source: str) -> str:
    return f"generated by {_package()}" if source == GENERATED else ARRAYS


def _package() -> str:
    try:
        return f"imagecorruptions-imaug {version('imagecorruptions-imaug')}"
    except PackageNotFoundError:
        raise UserError(
            "corrupting images needs a package that is not installed: "
            f"{how_to_get('corruptions')}"
        ) from None


def _generated(data: Dataset, seed: int) -> Iterator[tuple[str, int, Iterator[Tensor]]]:
    for kind in KINDS:
        for severity in SEVERITIES:
            yield kind, severity, _corrupted(data, kind, severity, seed)


def _corrupted(data: Dataset, kind: str, severity: int, seed: int) -> Iterator[Tensor]:
    """All images of a cell, float32, `BLOCK_IMAGES` at a time."""
    with seeded(seed):
        for pixels in data.blocks(BLOCK_IMAGES):
            clean = (pixels.float().div_(data.levels) * 255).round().to(torch.uint8)
            yield torch.stack([corrupt(image, kind, severity) for image in clean])


def corrupt(image: Tensor, kind: str, severity: int) -> Tensor:
    """One image, uint8 (C, H, W), corrupted; float32 in [0, 1] of the same shape."""
    from imagecorruptions import corrupt as corrupt_array

    grey = image.shape[0] == 1
    colours = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    found = np.asarray(corrupt_array(colours, corruption_name=kind, severity=severity))
    tensor = torch.from_numpy(found.astype(np.float32) / 255).permute(2, 0, 1)
    return tensor.mean(dim=0, keepdim=True) if grey else tensor.contiguous()


def _official_rows(data: Dataset, folder: Path) -> npt.NDArray[np.int64]:
    """Positions in each block, after the labels have been compared."""
    if data.name not in OFFICIAL:
        raise UserError(
            f"there are no official corruption arrays for '{data.name}' (only for "
            f"{' and '.join(OFFICIAL)}); use --corruptions {GENERATED}"
        )
    labels = _read(folder / "labels.npy")
    rows = data.positions
    if labels.shape[0] not in (BLOCK, 5 * BLOCK) or not np.array_equal(
        labels[rows], data.labels.numpy()
    ):
        raise UserError(
            f"{folder / 'labels.npy'} does not match the test labels of {data.name}: "
            "these are not its corruption arrays"
        )
    return rows


def _official(
    data: Dataset, folder: Path
) -> Iterator[tuple[str, int, Iterator[Tensor]]]:
    for kind, severity, pixels in _blocks(data, folder):
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        parts = images.split(BLOCK_IMAGES)
        yield kind, severity, (part.float().div(255).contiguous() for part in parts)


def _blocks(
    data: Dataset, folder: Path
) -> Iterator[tuple[str, int, npt.NDArray[np.uint8]]]:
    """Five blocks of 10,000 per file, one block per severity, in test order."""
    rows = _official_rows(data, folder)
    for kind in KINDS:
        array = _read(folder / f"{kind}.npy")
        if array.shape != (5 * BLOCK, 32, 32, 3):
            raise UserError(
                f"{folder / kind}.npy has shape {array.shape}, not (50000, 32, 32, 3)"
            )
        for severity in SEVERITIES:
            yield kind, severity, array[(severity - 1) * BLOCK + rows]


def _fingerprint(data: Dataset, folder: Path) -> str:
    """Hex SHA-256 over the pixels of all cells, in order."""
    digest = hashlib.sha256()
    for block in _blocks(data, folder):
        digest.update(block[2].tobytes())
    return digest.hexdigest()


def _read(path: Path) -> npt.NDArray[np.uint8]:
    """Memory-mapped, and never unpickled."""
    try:
        found: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(
            f"no file {path}; --corruptions takes the unpacked folder of CIFAR-10-C or "
            f"CIFAR-100-C (Zenodo 2535967, 3555552), or '{GENERATED}'"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not a numpy array: {error}") from None
    return found
