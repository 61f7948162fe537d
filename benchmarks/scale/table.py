"""Tables of what was measured, and what it would come to for ImageNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Cell = tuple[str, str, int, int, int]
"""Part, network or solver, images, workers, processes."""
Found = Mapping[str, float]
MANY = 1_280_000
"""Training images of ImageNet-1k, about."""


def table(done: Mapping[Cell, Found], width: int) -> str:
    """All of it as Markdown; `width` is that of the probe's features."""
    parts = [_reading(done), _features(done), _fits(done), _extrapolated(done, width)]
    return "\n\n".join(part for part in parts if part)


def aim(done: Mapping[Cell, Found], cell: Cell) -> float:
    """Images a second over min(workers times one worker, what the network takes)."""
    _, network, size, workers, _ = cell
    found, one = done[cell], done["read", network, size, 1, 1]
    return found["images/s"] / min(workers * one["images/s"], one["network images/s"])


def _reading(done: Mapping[Cell, Found]) -> str:
    rows = []
    for cell, found in sorted(done.items()):
        part, network, size, workers, _ = cell
        if part == "read":
            both = workers > 1 and ("read", network, size, 1, 1) in done
            rows.append(
                [
                    network,
                    f"{size:,}",
                    str(workers),
                    f"{found['images/s']:.0f} / {found['bare images/s']:.0f}",
                    f"{found['images/core s']:.0f} / {found['bare images/core s']:.0f}",
                    f"{found['network images/s']:.0f}",
                    f"{aim(done, cell):.2f}" if both else "",
                    f"{found['peak MiB']:.0f}",
                ]
            )
    return _markdown(
        "network, images, workers, images/s: robrep / bare, "
        "images/core s: robrep / bare, network alone, over the aim, peak MiB",
        rows,
    )


def _features(done: Mapping[Cell, Found]) -> str:
    rows = [
        [
            f"{size:,}",
            str(processes),
            f"{found['images/s']:.0f}",
            f"{found['core s of one process']:.0f}",
            f"{found['peak MiB']:.0f}",
        ]
        for (part, _, size, _, processes), found in sorted(done.items())
        if part == "extract"
    ]
    names = "features of images, processes, images/s, core s of one process, peak MiB"
    return _markdown(names, rows)


def _fits(done: Mapping[Cell, Found]) -> str:
    rows = [
        [
            solver,
            f"{size:,}",
            str(processes),
            f"{found['core s of one process']:.1f}",
            f"{found['passes']:.0f}",
            f"{_per_pass(found, size, processes):.0f}",
            f"{found['peak MiB']:.0f}",
            f"{found['loss']:.4f}",
        ]
        for (part, solver, size, _, processes), found in sorted(done.items())
        if part == "fit"
    ]
    names = (
        "probe, images, processes, core s of one process, passes or steps, "
        "core µs an image and pass, peak MiB, loss"
    )
    return _markdown(names, rows)


def _per_pass(found: Found, size: int, processes: int) -> float:
    """Microseconds of cores."""
    return 1e6 * found["core s of one process"] * processes / found["passes"] / size


def _extrapolated(done: Mapping[Cell, Found], width: int) -> str:
    """From the largest size of each, as if each image cost what it did there."""

    def largest(fits: Callable[[Cell], bool]) -> tuple[Cell, Found] | None:
        cells = [cell for cell in done if fits(cell)]
        best = max(cells, key=lambda cell: cell[2], default=None)
        return None if best is None else (best, done[best])

    rows = []
    for network in dict.fromkeys(cell[1] for cell in done if cell[0] == "read"):
        read = largest(lambda c, n=network: c[:2] == ("read", n) and not c[3])  # type: ignore[misc]
        if read is not None:
            hours = MANY / read[1]["images/core s"] / 3600
            rows.append([f"features, {network}", f"{read[0][2]:,}", f"{hours:.1f}"])
    fit = largest(lambda c: c[:2] == ("fit", "robrep") and c[4] == 1)
    if fit is not None:
        each = _per_pass(fit[1], fit[0][2], 1) / 1e6
        hours = MANY * each / 3600
        rows.append(["the probe, each pass", f"{fit[0][2]:,}", f"{hours:.2f}"])
        size = 4 * MANY * width / 2**30
        rows.append([f"features of {width} columns: {size:.1f} GiB on disk", "", ""])
    names = f"EXTRAPOLATED to {MANY:,} images, from images, core hours"
    return _markdown(names, rows)


def _markdown(names: str, rows: Sequence[Sequence[str]]) -> str:
    heads = names.split(", ")
    lines = [heads, ["---"] * len(heads), *rows]
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
