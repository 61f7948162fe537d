"""What fell, by kind of task, and what that takes from means over suites."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmarks.claims.suites import (
    FASHION,
    LABELS,
    MID_LABELS,
    MID_SPECTRAL,
    PHOTOS,
    PHOTOS_LABELS,
    PHOTOS_SPECTRAL,
    SPECTRAL,
    entries,
)
from benchmarks.reattack.record import Line
from zoo.suites.suite import load_suite

KINDS = {
    "blur": "blur",
    "digits of 8x8, enlarged": "^digits.*-(1x28x28|3x32x32)-",
    "contrast": "contrast",
    "MNIST and clothing at 8x8": "-1x8x8-",
    "noise": "noise",
    "all others": "",
}
"""What is found in the names of entries; the first one counts."""
SMOOTH = list(KINDS)[:2]
"""Of these Square's many questions find what `fast` leaves."""
SUPERVISED = ("pgd-at", "trades")
SUITES = (
    ("handwriting", SPECTRAL),
    ("handwriting", LABELS),
    (FASHION, SPECTRAL),
    (FASHION, LABELS),
    (PHOTOS, PHOTOS_SPECTRAL),
    (PHOTOS, PHOTOS_LABELS),
    (PHOTOS, MID_SPECTRAL),
    (PHOTOS, MID_LABELS),
)
"""Of which the means are compared, by SLF."""


def markdown(found: Mapping[str, Line]) -> str:
    """Both, for the document."""
    lines = [line for line in found.values() if line.attacked]
    strong = [line for line in lines if line.strong]
    weak = [line for line in lines if not line.strong]
    names = Counter(name for line in weak for name in line.fallen.values())
    failed = [line.entry for line in found.values() if not line.holds]
    told = ", ".join(f"{count} to {name}" for name, count in names.most_common())
    sums = (
        f"`standard`: {len(strong)} entries, {_fell(strong)} fell. `fast`: "
        f"{len(weak)} entries, {_fell(weak)} fell ({told}). "
        f"{len(found) - len(lines)} entries more have no robust image. "
        f"Refuted: {', '.join(failed) or 'none'}."
    )
    return "\n".join([sums, "", *_kinds(weak), "", _smooth(weak), "", *_suites(found)])


def kind(entry: str) -> str:
    """Of tasks, by the name of ENCODER/ENTRY."""
    name = entry.partition("/")[2]
    return next(kind for kind, words in KINDS.items() if re.search(words, name))


def _kinds(lines: Iterable[Line]) -> list[str]:
    rows = [
        "| tasks | entries | without labels: fell | with labels: fell |",
        "|---|--:|--:|--:|",
    ]
    lines = list(lines)
    for name in KINDS:
        some = [line for line in lines if kind(line.entry) == name]
        taught = [line for line in some if line.entry.startswith(SUPERVISED)]
        free = [line for line in some if line not in taught]
        cells = " | ".join(_fell(side) for side in (free, taught))
        rows.append(f"| {name} | {len(some)} | {cells} |")
    return rows


def _smooth(lines: Sequence[Line]) -> str:
    """The first rows together, and all others."""
    first = [line for line in lines if kind(line.entry) in SMOOTH]
    others = [line for line in lines if kind(line.entry) not in SMOOTH]
    fell, rest = (_fell(side) or "none" for side in (first, others))
    return (
        f"Of the first {len(SMOOTH)} rows, smooth images, {fell} fell; of all others "
        f"{rest}."
    )


def _fell(lines: Iterable[Line]) -> str:
    """ "3 of 1,200 (0.2%)"."""
    lines = list(lines)
    fell, of = (
        sum(len(line.fallen) for line in lines),
        sum(line.attacked for line in lines),
    )
    return f"{fell} of {of:,} ({fell / of:.1%})" if of else ""


def _suites(found: Mapping[str, Line]) -> list[str]:
    rows = [
        "| suite, SLF | encoders | mean comes down by |",
        "|---|---|--:|",
    ]
    for suite, side in SUITES:
        loss = losses(suite, side, found)
        said = "not all attacked" if loss is None else f"{loss:.2f}"
        seeds = " and its seeds" if len(side) > 1 else ""
        rows.append(f"| `{suite}` | `{side[0]}`{seeds} | {said} |")
    return rows


def losses(
    name: str, encoders: Iterable[str], found: Mapping[str, Line]
) -> float | None:
    """Points by which the mean of robust accuracy over a suite comes down, if of all
    images as many fell as of those drawn; None: an entry was not attacked."""
    suite, points = load_suite(name), []
    for encoder in encoders:
        for entry, result in entries(encoder, suite, "slf").values():
            line = found.get(f"{encoder}/{entry}")
            if line is None:
                return None
            points.append(100 * result.robust.value * line.share)
    return float(np.mean(points))
