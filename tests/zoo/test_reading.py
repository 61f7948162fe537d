"""Images read by processes of their own are those that one process reads."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import datasets
from zoo.datasets import workers
from zoo.datasets.base import Dataset, from_array
from zoo.datasets.workers import PART_BYTES, Rows, read
from zoo.errors import RobrepError, UserError
from zoo.layout import Layout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs of 224 pixels and another width each, so that none looks like another."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(24):
        path = root / "test" / f"class{i % 3}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(small).resize((260 + i, 240)).save(path)
    return root


@pytest.fixture
def photographs(folder: Path) -> Dataset:
    return datasets.load(f"imagefolder:{folder}@3x224x224", "test")


@pytest.mark.parametrize("workers", [1, 2])
def test_pixels_and_order_are_those_of_one_process(
    photographs: Dataset, workers: int
) -> None:
    plain = photographs.integers(slice(None))
    assert len(plain) * 3 * 224 * 224 > 2 * PART_BYTES, "several parts, or no test"
    state = torch.get_rng_state()
    part = photographs.read_by(workers)
    assert torch.equal(torch.cat(list(part.blocks(10))), plain)
    several: list[Rows] = [torch.tensor([7, 1, 23]), slice(4, 20), [5]]
    for rows, found in zip(several, read(part, several), strict=True):
        assert torch.equal(found, photographs.integers(rows))
    floats = torch.cat(list(part.batches(Layout(batch_size=10))))
    assert torch.equal(floats, plain.float() / 255)
    assert part.fingerprint() == photographs.fingerprint()
    assert torch.equal(torch.get_rng_state(), state), "it drew from the global stream"


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_places_are_taken_again_and_nothing_is_lost(
    depth: type[np.uint8] | type[np.uint16],
) -> None:
    """More parts than places, and batches of more parts than a process keeps ready."""
    draws = np.random.default_rng(0)
    images = draws.integers(np.iinfo(depth).max, size=(180, 3, 192, 192), dtype=depth)
    data = from_array(
        images, np.arange(180) % 2, name="own", split="test", classes=["a", "b"]
    )
    each = PART_BYTES // (3 * 192 * 192)
    assert 180 // each > 2 * workers.SLOTS
    plain = data.integers(slice(None))
    for count in (1, 2):
        blocks = data.read_by(count).blocks(90)
        assert torch.equal(torch.cat(list(blocks)), plain)


def test_subsets_keep_the_workers_and_not_the_hash(photographs: Dataset) -> None:
    whole = photographs.read_by(2)
    assert whole.fingerprint() != whole.subset([1, 2]).fingerprint()
    assert whole.subset([1, 2]).workers == 2
    assert photographs.workers == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named(folder: Path, workers: int, tmp_path: Path) -> None:
    broken = tmp_path / "test" / "class1" / "broken.jpg"
    whole = sorted((folder / "test" / "class0").iterdir())[0].read_bytes()
    for name in ("class0/a.jpg", "class1/a.jpg"):
        (tmp_path / "test" / name).parent.mkdir(parents=True)
        (tmp_path / "test" / name).write_bytes(whole)
    broken.write_bytes(whole[: len(whole) // 2])
    data = datasets.load(f"imagefolder:{tmp_path}@3x224x224", "test").read_by(workers)
    with pytest.raises(UserError, match=r"cannot read image .*broken\.jpg"):
        list(data.blocks(2))
    with pytest.raises(UserError, match=r"1 of the 3 .* more than .* 0 .*broken\.jpg"):
        data.without_broken(0)
    rest = data.without_broken(1)
    assert rest.positions.tolist() == [0, 1]
    assert "1 of the 3 images of test could not be read and were left out, at 2." in (
        rest.notes
    )
    assert len(torch.cat(list(rest.blocks(2)))) == 2
    assert rest.without_broken(0) is rest
    with pytest.raises(UserError, match=r"none of the 1 images .* can be read"):
        data.subset([2]).without_broken(9)


def test_a_worker_that_dies_is_an_error_and_no_endless_wait() -> None:
    images = np.zeros((40, 3, 224, 224), dtype=np.uint8)
    data = from_array(
        images, np.arange(40) % 2, name="own", split="test", classes=["a", "b"]
    )
    own, here = data._fetch, os.getpid()

    def dying(at: np.ndarray) -> np.ndarray:
        if os.getpid() != here and 20 in at.tolist():
            os.kill(os.getpid(), signal.SIGKILL)
        return own(at)

    data._fetch = dying
    with pytest.raises(RobrepError, match="a process that reads images died"):
        list(data.read_by(2).blocks(8))


@pytest.mark.parametrize(
    "seen", [ConnectionResetError(104), ConnectionRefusedError(), EOFError()]
)
def test_a_worker_that_dies_before_its_part_is_fetched(seen: Exception) -> None:
    def announced() -> Iterator[None]:
        raise seen
        yield

    with pytest.raises(RobrepError, match="a process that reads images died"):
        workers._next(announced())


def test_a_caller_may_stop_in_the_middle(photographs: Dataset) -> None:
    blocks = photographs.read_by(2).blocks(4)
    first = next(blocks)
    del blocks
    assert torch.equal(first, photographs.integers(slice(4)))


def test_a_number_below_zero_is_refused(photographs: Dataset) -> None:
    with pytest.raises(UserError, match="zero or more, not -1"):
        photographs.read_by(-1)
