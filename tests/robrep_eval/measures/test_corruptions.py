"""Common corruptions: each cell against the package itself, or the official rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from imagecorruptions import corrupt as reference
from torch import nn

from robrep_eval import evaluate
from robrep_eval.measures.corruptions import (
    BLOCK,
    KINDS,
    CommonCorruptions,
    corrupt,
    measure_corruptions,
)
from robrep_eval.randomness import seeded
from robrep_eval.run.plan import prepare
from robrep_eval.run.request import Request
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset, from_array
from zoo.errors import UserError
from zoo.measurements import Corruptions, Measurements
from zoo.records import Result, with_measurements
from zoo.result_file import write_result

SIDE = 32


def photographs(n: int, name: str = "cifar10") -> Dataset:
    """Random colour images of 10 classes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    return from_array(
        coarse.repeat(4, axis=2).repeat(4, axis=3),
        np.arange(n) % 10,
        name=name,
        split="test",
        classes=[str(i) for i in range(10)],
    )


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A linear classifier that is right about the clean images by construction."""
    data = photographs(20)
    x = data.images(slice(None)).flatten(1)
    head = nn.Linear(x.shape[1], 10)
    with torch.no_grad():
        targets = nn.functional.one_hot(data.labels, 10).float() * 2 - 1
        head.weight.copy_((torch.linalg.pinv(x) @ targets).T)
        head.bias.zero_()
    made = Classifier(nn.Flatten(), head, classes=10, shape=(3, SIDE, SIDE))
    assert bool((made(data.images(slice(None))).argmax(dim=1) == data.labels).all())
    return made


@pytest.mark.parametrize(("kind", "severity"), [("fog", 2), ("jpeg_compression", 4)])
def test_images_are_the_packages(kind: str, severity: int) -> None:
    image = photographs(1).integers(slice(1))[0]
    with seeded(3):
        found = corrupt(image, kind, severity)
    with seeded(3):
        array = image.permute(1, 2, 0).contiguous().numpy()
        want = reference(array, corruption_name=kind, severity=severity)
    assert torch.equal(
        (found * 255).round().byte(), torch.from_numpy(want).permute(2, 0, 1)
    )


def _official(folder: Path, data: Dataset) -> None:
    """Files of the official layout; severity s adds 10 s to every pixel."""
    labels = np.arange(BLOCK, dtype=np.uint8) % 10
    np.save(folder / "labels.npy", np.tile(labels, 5))
    first = folder / f"{KINDS[0]}.npy"
    array = np.lib.format.open_memmap(  # sparse: only the rows in use are written
        first, mode="w+", dtype=np.uint8, shape=(5 * BLOCK, SIDE, SIDE, 3)
    )
    pixels = data.integers(slice(None)).permute(0, 2, 3, 1).long()
    for severity in range(1, 6):
        rows = (severity - 1) * BLOCK + data.positions
        array[rows] = (pixels + 10 * severity).clamp(max=255).byte().numpy()
    array.flush()
    for kind in KINDS[1:]:
        (folder / f"{kind}.npy").hardlink_to(first)


def test_official_arrays_are_read_block_by_block(
    classifier: Classifier, tmp_path: Path
) -> None:
    data = photographs(20).subset([3, 4, 7, 11, 19])
    _official(tmp_path, data)
    found = measure_corruptions(classifier, data, str(tmp_path))
    assert found.official
    assert [cell.corruption for cell in found.cells[::5]] == list(KINDS)
    pixels = data.integers(slice(None)).long()
    for cell in found.cells:
        moved = (pixels + 10 * cell.severity).clamp(max=255).float() / 255
        right = (classifier(moved).argmax(dim=1) == data.labels).sum()
        assert (cell.accuracy.k, cell.accuracy.n) == (int(right), 5)
    assert found.mean == pytest.approx(
        sum(cell.accuracy.k for cell in found.cells) / (5 * 75)
    )
    np.save(tmp_path / "labels.npy", np.zeros(BLOCK, dtype=np.uint8))
    with pytest.raises(UserError, match="not its corruption arrays"):
        measure_corruptions(classifier, data, str(tmp_path))


@pytest.mark.slow
def test_full_reports_them_beside_and_never_in_the_robust_accuracy(
    classifier: Classifier,
) -> None:
    data = photographs(4, name="own")
    request = Request(model=classifier, dataset=data, attacks="full", eps=0.01)
    brought = prepare(request).request.measure
    assert brought == (*request.measure, CommonCorruptions())
    own = replace(request, attacks="Full", measure=(CommonCorruptions(),))
    assert prepare(own).request.measure == own.measure
    quick = replace(request, attacks="fgsm")
    assert prepare(quick).request.measure == request.measure
    result = evaluate(
        classifier,
        dataset=data,
        attacks="fgsm",
        eps=1e-6,
        measure=(CommonCorruptions(),),
    )
    found = Measurements.of(result).corruptions
    assert found is not None
    assert not found.official
    assert "imagecorruptions" in found.source
    assert len(found.cells) == 75
    # Corrupted images are misread, yet the adversarial figure does not know of them.
    assert found.mean < 1.0
    assert result.robust.value == result.clean.value == 1.0


@pytest.mark.slow
def test_other_images_are_measured_anew(classifier: Classifier, tmp_path: Path) -> None:
    """Official arrays after generated ones, and arrays that were mended since."""
    data = photographs(20).subset([3, 4, 7])
    (tmp_path / "arrays").mkdir()
    _official(tmp_path / "arrays", data)

    def again(source: str) -> tuple[Result, Corruptions]:
        result = evaluate(
            classifier,
            dataset=data,
            attacks="none",
            eps=0.01,
            measure=(CommonCorruptions(source=source),),
            output=tmp_path / "run",
        )
        found = Measurements.of(result).corruptions
        assert found is not None
        return result, found

    generated, first = again("generated")
    assert not first.official
    assert again("generated")[0] == generated
    official, second = again(str(tmp_path / "arrays"))
    assert second.official
    assert again(str(tmp_path / "arrays"))[0] == official
    (tmp_path / "arrays").rename(tmp_path / "moved")
    assert again(str(tmp_path / "moved"))[0] == official
    array = np.load(tmp_path / "moved" / f"{KINDS[0]}.npy", mmap_mode="r+")
    array[data.positions] = 0
    array.flush()
    third = again(str(tmp_path / "moved"))[1]
    assert third.cells != second.cells
    older = third.model_copy(update={"settings": {}})
    unsaid = with_measurements(generated, {"corruptions": older})
    write_result(tmp_path / "run", unsaid)
    assert again(str(tmp_path / "moved"))[1] == third, "which arrays was not noted"
    assert not again("generated")[1].official
