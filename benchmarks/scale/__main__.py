"""Reading, features and probe at several sizes, beside a bare loop and scikit-learn.

    OMP_NUM_THREADS=1 python -m benchmarks.scale --folder FOLDER

Makes JPEGs of 224 pixels on the spot. Each figure comes from a process of its own:
images a second through robrep and through a bare DataLoader loop with the same workers
and network, a cheap one at all sizes and `--arch` on small ones; features by one and
two processes; the probe's seconds and peak memory, on features of as many rows and 512
columns, beside scikit-learn's lbfgs and saga, which minimise the same from the same
start: lbfgs to the same largest gradient, saga until an epoch changes no weight by more
than 1e-4 of the largest, or for 30 epochs. FOLDER keeps what was measured: the same
command goes on where it was, and prints tables of all of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.scale import images, probes
from benchmarks.scale.table import Cell, table


def main() -> None:
    """Measures what was not measured before, then prints tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", nargs="*", type=int, default=(2000, 8000, 32000))
    parser.add_argument("--workers", nargs="*", type=int, default=(0, 1, 2))
    parser.add_argument("--processes", nargs="*", type=int, default=(1, 2))
    parser.add_argument("--arch", default="timm:resnet18", help="read beside cheap")
    parser.add_argument("--arch-images", nargs="*", type=int, default=(500, 2000))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--width", type=int, default=512, help="of probe features")
    parser.add_argument("--folder", type=Path, help="for images, features, results")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell is not None:
        print(json.dumps(_measure(given, json.loads(given.cell))))
        return
    with tempfile.TemporaryDirectory(prefix="robrep-scale-") as temporary:
        given.folder = given.folder or Path(temporary)
        file = given.folder / "results.jsonl"
        done = dict(_results(file))
        for cell in _cells(given):
            if cell not in done and (found := _run(given, cell)) is not None:
                done[cell] = found
                with file.open("a") as lines:
                    lines.write(json.dumps([cell, found]) + "\n")
        print(table(done, given.width))


def _cells(given: argparse.Namespace) -> Iterator[Cell]:
    """Everything to measure; what takes longest for what it tells comes last."""
    sizes = sorted(given.sizes)
    for size in sizes:
        for processes in given.processes:
            yield "fit", "robrep", size, 0, processes
    for size in sizes:
        yield from (
            ("read", "cheap", size, workers, 1) for workers in given.workers[:1]
        )
    yield "fit", "lbfgs", sizes[0], 0, 1
    for size in sorted(given.arch_images):
        for workers in given.workers:
            yield "read", given.arch, size, workers, 1
    for processes in given.processes:
        yield "extract", "cheap", sizes[0], 0, processes
    yield from (("fit", "lbfgs", size, 0, 1) for size in sizes[1:])
    for size in sizes:
        yield from (
            ("read", "cheap", size, workers, 1) for workers in given.workers[1:]
        )
    yield from (("fit", "saga", size, 0, 1) for size in sizes)


def _results(file: Path) -> Iterator[tuple[Cell, dict[str, float]]]:
    if file.exists():
        for line in file.read_text().splitlines():
            (part, what, size, workers, processes), found = json.loads(line)
            yield (part, what, size, workers, processes), found


def _run(given: argparse.Namespace, cell: Cell) -> dict[str, float] | None:
    """Measures one cell in processes of its own, and prints what it came to."""
    part, what, size, _, processes = cell
    if part != "fit":
        images.make(given.folder / str(size), size, given.classes)
    words = [sys.executable]
    if processes > 1:
        words += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        words += [str(processes)]
    words += ["-m", "benchmarks.scale", "--cell", json.dumps(cell)]
    words += ["--folder", str(given.folder), "--device", given.device]
    words += ["--arch", given.arch if part == "fit" else what]
    words += ["--classes", str(given.classes), "--width", str(given.width)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        print(f"{cell} failed: {done.stderr.strip()[-2000:]}", flush=True)
        return None
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    shown = ", ".join(f"{name} {value:,.4g}" for name, value in found.items())
    print(f"{cell}: {shown}", flush=True)
    return found


def _measure(given: argparse.Namespace, cell: Cell) -> dict[str, float]:
    part, what, size, workers, _ = cell
    root = given.folder / str(size)
    if part == "read":
        return images.read(given, root, workers)
    if part == "extract":
        return images.extract(given, root, workers)
    if what == "robrep":
        return probes.fit(given, root / f"z{given.width}", size)
    return probes.peer(given, what, size)


if __name__ == "__main__":
    main()
