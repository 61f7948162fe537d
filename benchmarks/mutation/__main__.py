"""Mutation testing of the ground: which small changes of its files no test sees.

    OMP_NUM_THREADS=1 python -m benchmarks.mutation
    OMP_NUM_THREADS=1 python -m benchmarks.mutation --rev v1 --each 100 zoo/ball.py

A copy of a revision is changed in one place at a time (`mutants`), and the tests of the
changed file are run in it. A change is killed if one of them fails or does not end;
what survives is printed. Some survivors change nothing that can be seen, such as the
smallest number that a length is divided by.

mutmut runs the whole suite first, to learn which test reaches which function, and
changes every place of them all; cosmic-ray starts an interpreter for each change, and
importing torch takes longer than the tests of a file here. So: a seeded sample, a table
of tests by file, and forks of one process that has imported torch.
"""

from __future__ import annotations

import argparse
import io
import random
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.mutation.mutants import Mutant, mutants
from benchmarks.mutation.trial import run

TESTS = {
    "zoo/threat.py": ["tests/zoo/test_threat.py"],
    "zoo/ball.py": ["tests/zoo/test_ball.py"],
    "zoo/evidence.py": ["tests/zoo/test_evidence.py"],
    "zoo/verdicts.py": ["tests/zoo/test_records.py"],
    "zoo/deltas.py": ["tests/zoo/test_deltas.py"],
    "zoo/bound.py": ["tests/zoo/test_bound.py"],
    "zoo/paired.py": ["tests/zoo/test_paired.py"],
    "zoo/hypergeometric.py": ["tests/zoo/test_hypergeometric.py"],
    "zoo/selection.py": ["tests/zoo/test_selection.py"],
    "zoo/margins.py": ["tests/zoo/test_soundness.py"],
}
"""By file of the ground, the tests that alone ought to see what is wrong with it."""
PATIENCE = 20.0
"""Seconds that a change may add to the tests, beside a factor of five."""


@dataclass
class Tally:
    """What became of the changes of one file."""

    possible: int
    killed: int = 0
    survivors: list[Mutant] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.killed + len(self.survivors)


def main() -> None:
    """Prints a line for each file, its survivors below it, and the sum."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rev", default="HEAD", help="git revision to change")
    parser.add_argument("--each", type=int, default=15, help="changes tried per file")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--line", type=int, help="changes of this line alone")
    parser.add_argument(
        "files", nargs="*", metavar="FILE[=TEST,...]", help="by default ten of zoo/"
    )
    given = parser.parse_args()
    tallies = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve()
        _copy(given.rev, tree)
        for name, tests in map(_tests, given.files or TESTS):
            there = [test for test in tests if (tree / test).is_file()]
            if not there or not (tree / name).is_file():
                print(f"{name}: not in {given.rev}, or without tests of its own")
                continue
            tally = _try(tree, name, there, given)
            tallies.append(tally)
            print(f"{name}: {tally.killed} of {tally.tried} killed", flush=True)
            for one in tally.survivors:
                print(f"  {name}:{one}", flush=True)
    killed, tried = sum(t.killed for t in tallies), sum(t.tried for t in tallies)
    print(f"{killed} of {tried} killed, of {sum(t.possible for t in tallies)} possible")


def _copy(revision: str, tree: Path) -> None:
    packed = subprocess.run(
        ["git", "archive", revision], check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(tree, filter="data")


def _tests(text: str) -> tuple[str, list[str]]:
    name, _, tests = text.partition("=")
    return name, tests.split(",") if tests else TESTS.get(name, [])


def _try(tree: Path, name: str, tests: list[str], given: argparse.Namespace) -> Tally:
    """A sample of the changes of one file, which is restored."""
    path = tree / name
    source = path.read_text()
    possible = [m for m in mutants(source) if given.line in (None, m.line)]
    draws = random.Random(f"{given.seed} {name}")
    chosen = draws.sample(possible, min(given.each, len(possible)))
    began = time.monotonic()
    if status := run(tree, tests, 600):
        raise SystemExit(f"{' '.join(tests)} fail without any change ({status})")
    limit = 5 * (time.monotonic() - began) + PATIENCE
    tally = Tally(len(possible))
    for mutant in sorted(chosen, key=lambda mutant: mutant.line):
        path.write_text(mutant.source)
        if run(tree, tests, limit):
            tally.killed += 1
        else:
            tally.survivors.append(mutant)
    path.write_text(source)
    return tally


if __name__ == "__main__":
    main()
