"""The adversarials behind a result, read from the files beside its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo import compact
from zoo.datasets.base import Dataset
from zoo.errors import UserError, VerificationError
from zoo.files import read_tensors, sha256_file
from zoo.records import Result


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The adversarials behind a result."""

    positions: Tensor
    """Row of each in result.examples, int64 (k,)."""
    attack_index: Tensor
    """Which of result.attacks found it, int64 (k,)."""
    images: Tensor | compact.Images
    """float32 (k, C, H, W)."""


def read_claims(folder: Path, result: Result, data: Dataset | None) -> Claims:
    """The adversarials beside the result, their file compared by hash.

    Args:
        folder: Of the run.
        result: Its record.
        data: The evaluated images, without which no compact adversarial is looked at.

    Raises:
        UserError: the file is missing or unreadable.
        VerificationError: it is not the file that the result names, or of other form.
    """
    path = folder / result.evidence.file
    same_hash(path, result.evidence.file_sha256, "the evidence")
    tensors, _ = read_tensors(path)
    wanted = {"positions", "attack", "stream", "ends"}
    if tensors.keys() not in (wanted, {"positions", "attack", "images"}):
        raise VerificationError(
            f"{path} holds the tensors {', '.join(sorted(tensors)) or 'none'}, not "
            f"{', '.join(sorted(wanted))}"
        )
    try:
        claims = Claims(
            positions=tensors["positions"],
            attack_index=tensors["attack"],
            images=_adversarials(tensors, result, data),
        )
        _check_form(claims, result)
    except ValueError as error:
        raise VerificationError(f"{path}: {error}") from None
    return claims


def _adversarials(
    tensors: dict[str, Tensor], result: Result, data: Dataset | None
) -> Tensor | compact.Images:
    """As they are, or packed; raises `ValueError` for another form."""
    shape = tuple(result.dataset.shape)
    if "images" not in tensors:
        packed = compact.Packed(tensors["stream"], tensors["ends"])
        rows = tensors["positions"]

        def origins(numbers: Tensor) -> Tensor:
            if data is None:
                raise UserError("adversarials are kept beside images not at hand")
            return data.images(rows[numbers])

        return compact.Images(packed, origins, result.dataset.shape, result.threat)
    images = tensors["images"]
    count = len(images) if images.ndim else 0
    if images.dtype != torch.float32 or images.shape != (count, *shape):
        raise ValueError(
            f"'images' is {images.dtype} of shape {tuple(images.shape)}, "
            f"not float32 of shape (k, {', '.join(map(str, shape))})"
        )
    return images


def _check_form(claims: Claims, result: Result) -> None:
    """Raises `ValueError` unless each row can be an adversarial of the result."""
    count = len(claims.images)
    for name, rows, most in (
        ("positions", claims.positions, result.dataset.n),
        ("attack", claims.attack_index, len(result.attacks)),
    ):
        if rows.dtype != torch.int64 or rows.shape != (count,):
            raise ValueError(
                f"'{name}' is {rows.dtype} of shape {tuple(rows.shape)}, not int64 of "
                f"shape ({count},), one for each image"
            )
        if count and not 0 <= int(rows.min()) <= int(rows.max()) < most:
            raise ValueError(
                f"'{name}' goes from {int(rows.min())} to {int(rows.max())}; the "
                f"result has {most}"
            )


def same_hash(path: Path, expected: str, what: str) -> None:
    if not path.is_file():
        raise UserError(f"{what} is missing: no file {path}")
    if sha256_file(path) != expected:
        raise VerificationError(f"{what}, {path}, is not the file the result names")
