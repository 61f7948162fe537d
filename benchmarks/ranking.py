"""Speed of ranking a large collection beside statsmodels' tests pair by pair.

    OMP_NUM_THREADS=1 python -m benchmarks.ranking

Made-up entries on the same images, in groups; a group is ranked from its results, from
their columns on. Seconds are those of the processor. The peer tests a sample of the
pairs and is extrapolated to all: as columns of NumPy that are read already, which
favours it. Both must decide each sampled pair alike.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

from zoo.board.ranking import Sample, places
from zoo.paired import LEVEL, better
from zoo.records import (
    DatasetRecord,
    Evidence,
    Examples,
    ModelRecord,
    Outcome,
    Proportion,
    Provenance,
    Result,
    Verdict,
)
from zoo.threat import ThreatModel

SEED = 0


@dataclass
class Times:
    """Seconds of the processor, and pairs that were tested in them."""

    read: float = 0.0
    rank: float = 0.0
    peer: float = 0.0
    sampled: int = 0
    pairs: int = 0


def main() -> None:
    """Prints our processor seconds, the peer's, and the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--sample", type=int, default=40, help="pairs a group")
    given = parser.parse_args()
    size = given.entries // given.groups
    rng = np.random.default_rng(SEED)
    times = Times()
    for _ in range(given.groups):
        _measure(_group(size, given.images, rng), times, given.sample)
    ours = times.read + times.rank
    theirs = times.peer / times.sampled * times.pairs
    print(
        f"{size * given.groups} entries in {given.groups} groups on {given.images} "
        f"images, {times.pairs} pairs\n"
        f"robrep       {ours:8.1f} s ({times.read:.1f} s columns of the results, "
        f"{times.rank:.1f} s ranks)\n"
        f"statsmodels  {theirs:8.1f} s, extrapolated from {times.sampled} pairs in "
        f"{times.peer:.2f} s\n"
        f"ratio        {theirs / ours:8.1f}\n"
        f"peak memory  {_peak():8.0f} MiB, the results of a group among it"
    )


def _peak() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _group(size: int, images: int, rng: np.random.Generator) -> list[Result]:
    """Results as alike as real ones: each image is about as hard for all of them."""
    hard = rng.random(images)
    label = rng.integers(0, 10, images)
    results = []
    for strength in rng.uniform(0.2, 0.6, size):
        held = hard + rng.normal(0, 0.2, images) < strength
        # Each has numbers of its own, as records that were read have.
        index = np.arange(images).tolist()
        results.append(_result(index, label.tolist(), held.tolist()))
    return results


def _result(index: list[int], label: list[int], held: list[bool]) -> Result:
    """A record as it is after reading; what ranking does not look at is filled in."""
    n, digest = len(index), "0" * 64
    threat = ThreatModel(norm="Linf", eps=8 / 255)
    examples = Examples.model_construct(
        index=index,
        label=label,
        clean_prediction=label,
        verdict=[Verdict.ROBUST if h else Verdict.FOOLED for h in held],
        outcomes={"a": [Outcome.HELD if h else Outcome.FOOLED for h in held]},
    )
    return Result.model_construct(
        model=ModelRecord(
            reference="made-up",
            arch="none",
            parameters=0,
            weights_sha256=digest,
            file="none",
            file_sha256=digest,
        ),
        probe=None,
        dataset=DatasetRecord(
            name="made-up",
            split="test",
            n=n,
            sha256=digest,
            classes=10,
            shape=(3, 32, 32),
        ),
        threat=threat,
        battery="standard",
        engine="robrep",
        chunk_size=512,
        seed=SEED,
        clean=Proportion.of(n, n),
        robust=Proportion.of(sum(held), n),
        undecided=0,
        attacks=[],
        examples=examples,
        evidence=Evidence(file="none", file_sha256=digest, count=0, tolerance=0.0),
        seconds={},
        provenance=Provenance(robrep="0", versions={}, device="cpu", threads=1),
    )


def _measure(group: list[Result], times: Times, sample: int) -> None:
    began = time.process_time()
    samples = [Sample.of(result) for result in group]
    read = time.process_time()
    found = places(samples)
    done = time.process_time()
    assert len(found) == len(group)
    rng = random.Random(SEED)
    pairs = [rng.sample(range(len(group)), 2) for _ in range(sample)]
    peer = time.process_time()
    decided = [_peer(samples[i].robust, samples[j].robust) for i, j in pairs]
    times.peer += time.process_time() - peer
    times.read += read - began
    times.rank += done - read
    times.sampled += len(pairs)
    times.pairs += len(group) * (len(group) - 1) // 2
    _agree(samples, pairs, decided)


def _peer(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether statsmodels tells two columns apart."""
    table = [[int((a & b).sum()), int((a & ~b).sum())]]
    table += [[int((~a & b).sum()), int((~a & ~b).sum())]]
    return bool(mcnemar(table, exact=True).pvalue < LEVEL)


def _agree(
    samples: Sequence[Sample], pairs: Sequence[Sequence[int]], decided: list[bool]
) -> None:
    columns = [(samples[i].robust, samples[j].robust) for i, j in pairs]
    only_a = np.array([(a & ~b).sum() for a, b in columns])
    only_b = np.array([(b & ~a).sum() for a, b in columns])
    assert (better(only_a, only_b) != 0).tolist() == decided, "the peer disagrees"


if __name__ == "__main__":
    main()
