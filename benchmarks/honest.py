"""What the health checks that count images show of the published encoders.

    OMP_NUM_THREADS=1 python -m benchmarks.honest --data-dir FOLDER --standing 32
    python -m benchmarks.honest --entries tarrl-digits prototypes-fashion-mnist

For each entry under `standard`: images that Square alone fooled, of those that its
white-box attacks left; how many of them stand after the second look; and how many of a
sample of standing images fall to each check of `robrep_eval.measures.health.standing`.
The sums at the end are the rates of `robrep_eval.measures.health.honest`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch

from benchmarks.batteries import published
from robrep_eval.measures.health import standing
from robrep_eval.measures.health.black_box import unled
from robrep_eval.measures.health.subject import Subject
from zoo.arithmetic import full_float32
from zoo.classifier import Classifier
from zoo.collection.entries import DELTAS, Published
from zoo.collection.index import ENTRIES
from zoo.collection.store import opened
from zoo.datasets.base import Dataset
from zoo.deltas import unpack
from zoo.errors import MissingDatasetError
from zoo.files import read_tensors
from zoo.verification import load_named_dataset

CHECKS = (standing.other_losses, standing.decision_probe, standing.surrogate)


def subject(
    entry: Published, classifier: Classifier, data: Dataset, count: int
) -> Subject:
    """What the checks of a run of this entry look at."""
    path = f"{ENTRIES}/{entry.entry.name}/{DELTAS}"
    claims = unpack(read_tensors(opened(None).fetch(entry.row, path))[0], data)
    some = data.take(256)
    return Subject(
        classifier=classifier,
        x=some.images(slice(None)),
        y=some.labels,
        ids=some.positions.tolist(),
        threat=entry.result.threat,
        examples=entry.result.examples,
        whole=data,
        adversarials=claims.images,
        origins=data.images(claims.positions),
        owners=claims.positions,
        standing=count,
    )


@full_float32()
def main() -> None:
    """Prints one row for each entry, and the sums."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--entries", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--standing", type=int, default=32)
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = [check.__name__ for check in CHECKS]
    print(f"| classifier | left | by Square | hidden | sample | {' | '.join(names)} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    sums: Counter[str] = Counter()
    for label, entry, classifier in published(given.entries):
        try:
            data = load_named_dataset(entry.result, given.data_dir)
        except MissingDatasetError as reason:
            print(f"| {label} | not here: {reason} |")
            continue
        some = subject(entry, classifier, data, given.standing)
        left, rows, hidden = unled(some, ["square"])
        sample = len(standing.sample(some).x)
        row = {"left": left, "square": len(rows), "hidden": len(hidden)}
        row["sample"] = sample
        for check in CHECKS:
            row[check.__name__] = round(sample * (check(some).value or 0))
        sums.update(row)
        print(f"| {label} | {' | '.join(map(str, row.values()))} |", flush=True)
    print(f"| all | {' | '.join(str(sums[key]) for key in sums)} |")


if __name__ == "__main__":
    main()
