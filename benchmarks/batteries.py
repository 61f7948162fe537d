"""A battery beside `standard`, image by image, on the classifiers that are published.

    OMP_NUM_THREADS=1 python -m benchmarks.batteries --data-dir FOLDER --images 300
    python -m benchmarks.batteries --entries tarrl-digits/digits-linf-0.1-slf --timed 24

Entries hold each image's verdict under `standard`; the battery is run now, on the same
images, the first of each entry. "Missed" are images that only `standard` fools, "more"
those that only the battery does. Passes are rows of forward and of backward passes, all
of the run, over the number of images that stand in the end. With `--timed K` both run
on the first K images, for the share of `standard`'s seconds (those of the processor).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.battery import Battery, build
from robrep_eval.attacks.prepared import prepare
from zoo.arithmetic import full_float32
from zoo.classifier import Classifier
from zoo.collection.entries import Published, load_classifier, read_entry
from zoo.collection.store import opened
from zoo.datasets.base import Dataset
from zoo.errors import MissingDatasetError
from zoo.evidence import check_adversarials
from zoo.records import Verdict
from zoo.threat import ThreatModel
from zoo.verification import load_named_dataset


@dataclass(frozen=True)
class Found:
    """What a battery came to on some images."""

    robust: torch.Tensor
    """Bool (n,): correct and not fooled."""
    passes: int
    seconds: float


@full_float32()
def run(
    classifier: Classifier, data: Dataset, threat: ThreatModel, battery: Battery
) -> Found:
    """The battery's attacks in turn, each proposal checked as evidence is."""
    x, y = data.images(slice(None)), data.labels
    ids = torch.from_numpy(data.positions)
    model = prepare(classifier, around=(x[:6], threat))
    before = model.forward_rows + model.backward_rows
    began = time.process_time()
    with torch.no_grad():
        robust = torch.eq(classifier(x).argmax(dim=1), y)
    for attack in battery.attacks:
        rows = robust.nonzero().flatten()
        if not len(rows):
            break
        context = Context(seed=0, ids=ids[rows], batch_size=512)
        images = attack.propose(classifier, x[rows], y[rows], threat, context)
        check = check_adversarials(classifier, x[rows], images, y[rows], threat)
        robust[rows[check.fooled]] = False
    seconds = time.process_time() - began
    return Found(robust, model.forward_rows + model.backward_rows - before, seconds)


def published(wanted: list[str]) -> Iterator[tuple[str, Published, Classifier]]:
    """Entries under `standard` by robrep's engine, with their classifiers."""
    source = opened(None)
    for row in sorted(source.index.encoders, key=lambda each: each.card.name):
        for name in row.entries:
            label = f"{row.card.name}/{name}"
            if wanted and label not in wanted and row.card.name not in wanted:
                continue
            entry = read_entry(source, row, name)
            if entry.result.battery == "standard":
                yield label, entry, load_classifier(source, entry)


def main() -> None:
    """Prints one row for each entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--battery", default="fast")
    parser.add_argument("--entries", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--timed", type=int, default=0, metavar="K")
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"| classifier | images | standard | {given.battery} | missed | more "
        "| passes a survivor | seconds | share of standard's |\n"
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    )
    for label, entry, classifier in published(given.entries):
        try:
            data = load_named_dataset(entry.result, given.data_dir)
        except MissingDatasetError as reason:
            print(f"| {label} | not here: {reason} |")
            continue
        print(_row(label, entry, classifier, data, given), flush=True)


def _row(
    label: str,
    entry: Published,
    classifier: Classifier,
    data: Dataset,
    given: argparse.Namespace,
) -> str:
    result = entry.result
    part = data.subset(range(min(given.images, len(data))))
    found = run(
        classifier, part, result.threat, build(given.battery, norm=result.threat.norm)
    )
    verdicts = result.examples.verdict[: len(part)]
    standard = torch.tensor([v is Verdict.ROBUST for v in verdicts])
    share = ""
    if given.timed:
        few = data.subset(range(min(given.timed, len(data))))
        ours, theirs = (
            run(classifier, few, result.threat, build(name, norm=result.threat.norm))
            for name in (given.battery, "standard")
        )
        share = f"1/{theirs.seconds / ours.seconds:.1f}"
    return (
        f"| {label} | {len(part)} | {int(standard.sum())} | {int(found.robust.sum())} "
        f"| {int((found.robust & ~standard).sum())} "
        f"| {int((standard & ~found.robust).sum())} "
        f"| {found.passes / max(1, int(found.robust.sum())):.0f} "
        f"| {found.seconds:.1f} | {share} |"
    )


if __name__ == "__main__":
    main()
