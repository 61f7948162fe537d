"""Every method on digits at equal compute: clean accuracy and AutoAttack, three seeds.

    python benchmarks/methods.py            # trains, attacks, writes the table
    python benchmarks/methods.py --budget 480 --seeds 5

Compute is counted in passes per training image (forward equivalents, teacher
included), not in epochs. One setting for all: network, optimiser, batch, augmentation,
steps of the attack. Each finished cell is kept, so the command can be cut off and
repeated. Intervals: 95%, bootstrap over seeds and test images.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.progress import Lines
from pretrain.recipe import merge, validate
from pretrain.train import Surroundings, train
from robrep_eval import evaluate
from zoo.collection.index import CARD
from zoo.encoder import load_encoder
from zoo.files import write_text
from zoo.records import WEIGHTS, Card, Result, Verdict, read_record

EPS = 0.1
Matrix = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    label: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    """Method that gets part of the budget first."""
    share: float = 0.0
    """That part."""


ROWS = (
    Row("SimCLR", "simclr"),
    Row("TARRL", "tarrl"),
    Row(
        "TARRL, teacher",
        "tarrl",
        {"reference": "teacher", "weight": 40},
        "simclr",
        0.375,
    ),
    Row("RoCL", "rocl"),
    Row("ACL", "acl"),
    Row("AdvCL", "advcl", {"clusters": [2, 10, 50, 100]}, "simclr", 0.25),
    Row("DeACL", "deacl", {}, "simclr", 0.375),
    Row("DynACL", "dynacl"),
    Row("DynACL++", "dynacl++", {}, "dynacl", 0.75),
    Row("Prototypes", "prototypes", {}, "rocl", 0.5),
    Row("Spectral clusters", "spectral", {}, "rocl", 0.5),
    Row("PGD-AT (labels)", "pgd-at"),
    Row("TRADES (labels)", "trades"),
)


def main() -> None:
    """Reads the flags, fills the cells, prints and writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--budget", type=float, default=240, help="passes per image")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=360, help="test images attacked")
    parser.add_argument("--only", nargs="*", help="labels of rows to train now")
    parser.add_argument("--runs", type=Path, default=Path("runs/methods-digits"))
    parser.add_argument("--output", type=Path, help="where to write the Markdown table")
    given = parser.parse_args()
    results: dict[str, list[Result]] = {}
    passes: dict[str, float] = {}
    for seed in range(given.seeds):  # seed by seed: a cut-off run is still balanced
        for row in ROWS:
            if given.only is None or row.label in given.only:
                card, found = cell(row, seed, given.budget, given.limit, given.runs)
                results.setdefault(row.label, []).append(found)
                passes[row.label] = card.training.passes or 0.0
                print(row.label, seed, found.clean, found.robust, flush=True)
    text = table(results, passes, given.budget)
    print(text)
    if given.output:
        write_text(given.output, text)


def cell(
    row: Row, seed: int, budget: float, limit: int, runs: Path
) -> tuple[Card, Result]:
    """Trains and attacks one encoder, or reads what an earlier call found."""
    name = row.label.split(" (")[0].lower().replace(", ", "-").replace("++", "-pp")
    folder = runs / f"{name}-{seed}"
    last = train(
        validate(content(row, seed, budget, name)),
        folder,
        Surroundings(report=Lines()),
    )
    result = evaluate(
        load_encoder(last / WEIGHTS),
        dataset="digits",
        norm="Linf",
        eps=EPS,
        attacks="standard",
        limit=limit,
        output=folder / "evaluation",
    )
    return read_record(last / CARD, Card), result


def content(row: Row, seed: int, budget: float, name: str) -> dict[str, Any]:
    """The recipe of a cell."""
    common = {
        "name": name,
        "method": row.method,
        "options": row.options,
        "data": "digits",
        "arch": "resnet_s8",
        "threat": {"norm": "Linf", "eps": EPS},
        "attack": {"steps": 3},
        "batch": 128,
        "passes": budget,
        "optimizer": {"lr": 0.2},
        "monitor": {"every": 0},
        "seed": seed,
    }
    if row.teacher is None:
        return common
    teacher = {"method": row.teacher, "passes": row.share * budget}
    return merge(common, {"teacher": teacher})


def table(
    results: dict[str, list[Result]], passes: dict[str, float], budget: float
) -> str:
    """Markdown, best robust accuracy first."""
    lines = [
        f"| method | passes | clean, % | AutoAttack {EPS:g} Linf, % | seeds |",
        "|---|--:|--:|--:|--:|",
    ]
    ranked = sorted(results.items(), key=lambda item: -_robust(item[1]).mean())
    for label, found in ranked:
        lines.append(
            f"| {label} | {passes[label]:.0f} | {_interval(_clean(found))} | "
            f"{_interval(_robust(found))} | {len(found)} |"
        )
    n = next(iter(results.values()))[0].dataset.n
    lines.append(
        f"\nBudget {budget:g} passes per training image, {n} test images, mean over "
        "seeds [95% bootstrap over seeds and images]."
    )
    return "\n".join(lines) + "\n"


def _clean(found: list[Result]) -> Matrix:
    """(seeds, images): right without attack."""
    return np.array(
        [
            np.array(r.examples.label) == np.array(r.examples.clean_prediction)
            for r in found
        ]
    )


def _robust(found: list[Result]) -> Matrix:
    """(seeds, images): right under every attack."""
    return np.array([[v is Verdict.ROBUST for v in r.examples.verdict] for r in found])


def _interval(right: Matrix, draws: int = 4000) -> str:
    generator = np.random.default_rng(0)
    seeds, images = right.shape
    means = [
        right[generator.integers(seeds, size=seeds)][
            :, generator.integers(images, size=images)
        ].mean()
        for _ in range(draws)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{100 * right.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
