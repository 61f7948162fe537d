"""All entries attacked again, as `robrep-zoo verify --all --attack 50` does.

    torchrun --nproc-per-node 2 -m benchmarks.reattack --data-dir FOLDER   # hours
    python -m benchmarks.reattack --only digits       # entries with that word
    python -m benchmarks.reattack --table
    python -m benchmarks.reattack --publish --data-dir FOLDER   # their worst cases

What is found is added to `found.jsonl`, entry by entry, and goes on where it ended. The
table counts what fell by kind of task, and says how far means over suites come down.
`--publish` has the images that fell attacked once more, as they were, and adds their
adversarials to the worst case known of each entry.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.reattack import record, table
from benchmarks.shell import guarded
from zoo.collection.audit import Again, plan
from zoo.collection.entries import read_entry
from zoo.collection.gathering import Further
from zoo.collection.opening import open_source
from zoo.collection.reattack import find_attack
from zoo.collection.shared_audit import audit_all
from zoo.collection.sources import FolderSource
from zoo.collection.strengthen import strengthen
from zoo.errors import UserError, VerificationError
from zoo.processes import Company, leading
from zoo.writable import check_writable

ROOTS = [Path(__file__).parents[2] / name for name in ("zoo/embedded", "collection")]
"""Where the published encoders lie."""
SEED = 20261129
"""Drawn from nothing: the day on which this was begun, when all entries were public."""


def attack(given: argparse.Namespace) -> None:
    """Attacks entry by entry until none is left."""
    source = open_source("embedded")
    items = {str(item): item for item in plan(source, None) if item.entry}
    names = [name for name in items if all(word in name for word in given.only)]
    if not names:
        raise UserError(f"no entry has the words {', '.join(given.only)} in its name")
    check_writable(given.record.parent, "name another file with --record")
    again = Again(count=given.count, seed=SEED, attack=find_attack())
    known = record.read(given.record)
    done = {name for name, line in known.items() if line.enough(given.count)}
    left = [items[name] for name in names if name not in done]
    company = Company.from_environment("reattack")
    wrong = []
    for found in audit_all(source, left, company, data_dir=given.data_dir, again=again):
        wrong += [found.item] * (not found.holds)
        if found.reattacked is None:
            print(found, file=sys.stderr)
            continue
        record.add(record.Line.of(found), given.record)
        print(f"{found.item}: {found.reattacked}", flush=True)
    if wrong:
        raise VerificationError(
            f"{len(wrong)} of {len(left)} entries failed or could not be attacked: "
            f"{', '.join(wrong)}"
        )


def publish(given: argparse.Namespace) -> None:
    """Adds what fell, where it is not yet in the worst case of its entry."""
    for line in record.read(given.record).values():
        encoder, _, name = line.entry.partition("/")
        if not line.fallen or not all(word in line.entry for word in given.only):
            continue
        root = next((root for root in ROOTS if (root / encoder).is_dir()), None)
        if root is None:
            raise UserError(f"{given.record} speaks of '{encoder}', which is not here")
        source = FolderSource(root)
        worst = read_entry(source, source.find(encoder), name).worst
        known = set(map(int, line.fallen))
        if worst and known <= set(worst.fallen):
            continue
        again = Again(count=line.attacked, seed=line.seed, attack=find_attack())
        for some in (known, None):  # rounding in other batches may hold one back
            further = Further(again=again, known=some)
            told = strengthen(
                root, line.entry, [], further=further, data_dir=given.data_dir
            )
            if known <= set(told.fallen):
                break
        print(f"{line.entry}: {told}", flush=True)


def _positive(text: str) -> int:
    """A number of images."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of at least 1")
    return int(text)


def main() -> None:
    """Attacks, publishes what was found, or prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--count", type=_positive, default=50, help="of each entry")
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD")
    parser.add_argument("--record", type=Path, default=record.FOUND)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table.markdown(record.read(given.record)))
    elif given.publish:
        if leading():
            publish(given)
    else:
        attack(given)


if __name__ == "__main__":
    guarded(main, "benchmarks.reattack")
