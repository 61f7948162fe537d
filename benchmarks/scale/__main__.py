"""Reading, features and probe at several sizes, beside a bare loop and scikit-learn.

    OMP_NUM_THREADS=1 python -m benchmarks.scale --sizes 2000 8000 32000

Makes JPEGs of 224 pixels on the spot (`--folder` keeps them). For each size, each in a
process of its own: images a second through robrep and through a bare DataLoader loop
with the same workers and network; the probe's seconds and peak memory, on features of
as many rows and 512 columns, beside scikit-learn's lbfgs and saga on the smallest size;
and both by two processes. Memory is what no file backs, above that of a process that
has imported everything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

CLASSES, SIDE, WIDTH = 1000, 224, 512
L2 = 1e-3


def main() -> None:
    """Prints a line for each size and number of processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", nargs="*", type=int, default=(2000, 8000, 32000))
    parser.add_argument("--workers", nargs="*", type=int, default=(0, 1, 2))
    parser.add_argument("--processes", nargs="*", type=int, default=(1, 2))
    parser.add_argument("--arch", default="timm:resnet18")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--width", type=int, default=WIDTH, help="of probe features")
    parser.add_argument("--folder", type=Path, help="for images and features")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is not None:
        print(json.dumps(PARTS[given.part.split(":")[0]](given)))
        return
    with tempfile.TemporaryDirectory(prefix="robrep-scale-") as temporary:
        given.folder = given.folder or Path(temporary)
        for size in given.sizes:
            _make(given.folder / str(size), size, given.classes)
            for workers in given.workers:
                _tell(given, "read", size, workers, 1)
            for processes in given.processes:
                _tell(given, "fit", size, 0, processes)
        _tell(given, "peer", min(given.sizes), 0, 1)


def _tell(
    given: argparse.Namespace, part: str, size: int, workers: int, processes: int
) -> None:
    """Runs a part in processes of its own, and prints what it came to."""
    words = [sys.executable]
    if processes > 1:
        words += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        words += [str(processes)]
    words += ["-m", "benchmarks.scale", "--part", f"{part}:{size}:{workers}"]
    words += ["--folder", str(given.folder), "--device", given.device]
    words += ["--arch", given.arch, "--classes", str(given.classes)]
    words += ["--width", str(given.width)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        print(f"{part} of {size} failed: {done.stderr.strip()[-2000:]}", flush=True)
        return
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    shown = ", ".join(f"{name} {value:,.4g}" for name, value in found.items())
    where = f"{workers} workers" if part == "read" else f"{processes} processes"
    print(f"{size} images, {part}, {where}: {shown}", flush=True)


def _make(root: Path, count: int, classes: int) -> None:
    """JPEGs of coarse noise enlarged, of as many classes as asked for or images."""
    draws = np.random.default_rng(count)
    for i in range(count):
        path = root / "train" / f"{i % classes:04d}" / f"{i:07d}.jpg"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        small = draws.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE)).save(path, quality=90)


def _read(given: argparse.Namespace) -> dict[str, float]:
    """Images a second through robrep, and a bare DataLoader loop beside it."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import pil_to_tensor

    from robrep_eval.probes.feature_files import passes
    from zoo.datasets import load
    from zoo.encoder import Encoder, EncoderSpec
    from zoo.layout import Layout

    _, size, workers = given.part.split(":")
    root, batch = given.folder / size, 64
    shape = (3, SIDE, SIDE)
    encoder = Encoder(EncoderSpec(arch=given.arch, shape=shape)).eval().to(given.device)
    data = load(f"imagefolder:{root}", "train").read_by(int(workers))
    layout = Layout(device=given.device, batch_size=batch)
    for _ in passes(encoder, data.subset(slice(batch)), layout):
        pass  # warm
    before = _anonymous()
    began = time.perf_counter()
    count = sum(len(z) for z in passes(encoder, data, layout))
    ours = count / (time.perf_counter() - began)
    used = _peak() - before
    loader = DataLoader(
        ImageFolder(str(root / "train"), transform=pil_to_tensor),
        batch_size=batch,
        num_workers=int(workers),
        pin_memory=given.device != "cpu",
    )
    began, count = time.perf_counter(), 0
    with torch.no_grad():
        for pixels, _ in loader:
            x = pixels.to(given.device, non_blocking=True).float().div_(255)
            count += len(encoder(x).cpu())
    bare = count / (time.perf_counter() - began)
    return {
        "images/s": ours,
        "bare images/s": bare,
        "ratio": ours / bare,
        "peak MiB above": used / 2**20,
    }


def _fit(given: argparse.Namespace) -> dict[str, float]:
    """The probe on features in files: one fit from zeros, and its peak memory."""
    from robrep_eval.probes.logistic import Logistic
    from robrep_eval.probes.rows import Rows
    from robrep_eval.run.shards import Shards
    from zoo.files import read_tensors, write_tensors

    size = int(given.part.split(":")[1])
    parts = []
    shards = Shards.from_environment()
    with shards.team("making features") as team:
        for number, start in enumerate(range(0, size, 4096)):
            path = given.folder / f"z{size}-{given.width}" / f"{start:08d}.safetensors"
            if number % team.world == team.rank and not path.exists():
                z = _features(min(4096, size - start), given, start)[0]
                write_tensors(path, {"features": z}, {})
            parts.append(path)
    y = torch.arange(size) % given.classes
    with shards.team("the fit") as team:
        mapped = [read_tensors(path)[0]["features"] for path in parts]
        before, began = _anonymous(), time.perf_counter()
        problem = Logistic(Rows(mapped, y, given.device), given.classes, team)
        problem.head(problem.solve(L2, 1e-4, 5000))
        seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "peak MiB above": (_peak() - before) / 2**20,
        "features MiB": 4 * size * given.width / 2**20,
    }


def _peer(given: argparse.Namespace) -> dict[str, float]:
    """scikit-learn beside robrep on the same features, and how far each came."""
    from sklearn.linear_model import LogisticRegression

    from robrep_eval.probes.logistic import fit_linear

    size = int(given.part.split(":")[1])
    blocks = [_features(min(4096, size - s), given, s) for s in range(0, size, 4096)]
    z = torch.cat([block for block, _ in blocks]).double()
    z = (z - z.mean(dim=0)) / z.std(dim=0, correction=0)
    y = torch.arange(size) % given.classes
    began = time.perf_counter()
    head = fit_linear(z, y, classes=given.classes, l2=L2, tolerance=1e-4)
    found = {"robrep s": time.perf_counter() - began}
    found["loss"] = _loss(head.weight.double(), head.bias.double(), z, y)
    for solver in ("lbfgs", "saga"):
        model = LogisticRegression(
            C=1 / (L2 * size), solver=solver, tol=1e-4, max_iter=200
        )
        began = time.perf_counter()
        model.fit(z.numpy(), y.numpy())
        found[f"{solver} s"] = time.perf_counter() - began
        weight, bias = (torch.from_numpy(v) for v in (model.coef_, model.intercept_))
        found[f"{solver} loss"] = _loss(weight, bias, z, y)
    return found


def _features(count: int, given: argparse.Namespace, start: int) -> tuple[Tensor, int]:
    """Points around the centres of their classes, float32 (count, width)."""
    centres = torch.randn(
        given.classes, given.width, generator=torch.Generator().manual_seed(0)
    )
    draws = torch.Generator().manual_seed(1 + start)
    y = torch.arange(start, start + count) % given.classes
    noise = 3 * torch.randn(count, given.width, generator=draws)
    return centres[y] + noise, start


def _loss(weight: Tensor, bias: Tensor, z: Tensor, y: Tensor) -> float:
    loss = nn.functional.cross_entropy(z @ weight.T + bias, y)
    return float(loss + L2 / 2 * weight.square().sum())


def _anonymous() -> int:
    """Bytes in memory that no file backs."""
    return _status("RssAnon")


def _peak() -> int:
    """The most bytes that were in memory, less what files back now."""
    return _status("VmHWM") - _status("RssFile") - _status("RssShmem")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"this system does not tell {key}; Linux does")


PARTS = {"read": _read, "fit": _fit, "peer": _peer}


if __name__ == "__main__":
    main()
