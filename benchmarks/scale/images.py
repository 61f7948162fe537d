"""Photographs made on the spot, and how fast they are read."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.scale.usage import Usage, rate

SIDE, BATCH = 224, 64
DRAWN = 500
"""Different pictures; the files of a larger folder repeat them under other bytes."""
BARE = 8000
"""Images that the bare loop reads at most; its memory is not measured."""


def make(root: Path, count: int, classes: int) -> None:
    """JPEGs of coarse noise enlarged, of as many classes as asked for or images."""
    done = root / "made"
    if done.exists():
        return
    draws = np.random.default_rng(0)
    pictures = []
    for _ in range(min(count, DRAWN)):
        small = draws.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((SIDE, SIDE)).save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())
    for i in range(count):
        path = root / "train" / f"{i % classes:04d}" / f"{i:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_named(pictures[i % len(pictures)], i))
    done.touch()


def _named(jpeg: bytes, number: int) -> bytes:
    """The same picture with a comment, so that no two files are the same."""
    said = f"{number:08d}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(said) + 2).to_bytes(2, "big") + said + jpeg[2:]


def network(arch: str, device: str) -> nn.Module:
    """An encoder by name with random weights, or "cheap": 64 linear features.

    The same in all processes, which share its features out.
    """
    from zoo.encoder import Encoder, EncoderSpec

    torch.manual_seed(0)
    if arch == "cheap":
        layers = (nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * (SIDE // 8) ** 2, 64))
        return nn.Sequential(*layers).eval().to(device)
    return Encoder(EncoderSpec(arch=arch, shape=(3, SIDE, SIDE))).eval().to(device)


def read(given: argparse.Namespace, root: Path, workers: int) -> dict[str, float]:
    """Images a second through robrep, and a bare DataLoader loop beside it."""
    from robrep_eval.probes.feature_files import passes
    from zoo.datasets import load
    from zoo.layout import Layout

    encoder = network(given.arch, given.device)
    data = load(f"imagefolder:{root}", "train").read_by(workers)
    layout = Layout(device=given.device, batch_size=BATCH)
    for _ in passes(encoder, data.subset(slice(BATCH)), layout):
        pass  # warm
    loader = _loader(root, workers, given.device)
    usage = Usage()
    ours = rate(lambda: sum(len(z) for z in passes(encoder, data, layout)))
    memory = usage.mebibytes()
    bare = rate(lambda: _bare(encoder, loader, given.device))
    return {
        "images/s": ours[0],
        "bare images/s": bare[0],
        "ratio": ours[0] / bare[0],
        "images/core s": ours[1],
        "bare images/core s": bare[1],
        "core ratio": ours[1] / bare[1],
        "network images/s": _alone(encoder, given.device),
        "peak MiB": memory,
    }


def _loader(root: Path, workers: int, device: str) -> Iterable[Any]:
    """As people write it."""
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    images = ImageFolder(str(root / "train"), transform=pil_to_tensor)
    return DataLoader(
        Subset(images, range(min(len(images), BARE))),
        batch_size=BATCH,
        num_workers=workers,
        pin_memory=device != "cpu",
    )


def _bare(encoder: nn.Module, loader: Iterable[Any], device: str) -> int:
    """A loop as people write it; how many images it saw."""
    count = 0
    with torch.no_grad():
        for pixels, _ in loader:
            x = pixels.to(device, non_blocking=True).float().div_(255)
            count += len(encoder(x).cpu())
    return count


def _alone(encoder: nn.Module, device: str) -> float:
    """Images a second that the network takes, from integers in memory."""
    pixels = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    usage, count = Usage(), 0
    with torch.no_grad():
        while usage.seconds() < 3:
            count += len(encoder(pixels.to(device).float().div_(255)).cpu())
    return count / usage.seconds()


def extract(given: argparse.Namespace, root: Path, workers: int) -> dict[str, float]:
    """Features into files, as a run makes them, by all processes together."""
    from robrep_eval.probes.feature_files import FeatureFiles
    from robrep_eval.probes.feature_files import extract as into
    from robrep_eval.run.shards import Shards
    from zoo.datasets import load
    from zoo.layout import Layout

    encoder = network(given.arch, given.device)
    data = load(f"imagefolder:{root}", "train").read_by(workers)
    shards = Shards.from_environment()
    with shards.team("features") as team:
        files = FeatureFiles(folder=root / f"features-{team.world}-{given.arch}")
        usage = Usage()
        layout = Layout(device=given.device, batch_size=BATCH)
        count = sum(map(len, into(encoder, data, files, layout, team)))
        seconds, memory = usage.seconds(), usage.mebibytes()
    return {
        "images/s": count / seconds,
        "core s of one process": usage.cores(),
        "peak MiB": memory,
    }
