"""Who is better, and who is merely not shown to be worse.

Two robust accuracies measured on the same images are compared example by example, by
the exact test of McNemar (1947); on different images, by Fisher's exact test (1922).
A difference that such a test cannot tell from chance at 5% is a tie. No correction is
made for the number of pairs.

All pairs of a group are counted by products of Boolean matrices, block by block: H has
a row per result and a column per image, and (H H')[i, j] images are held by both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zoo.datasets.names import PLACES
from zoo.paired import LEVEL, Counts, better, fisher
from zoo.records import Result
from zoo.verdicts import Column, robust

MANY = 1 << 20
"""More classes than any dataset has."""
ROWS = 1024
"""Results in a block, at most."""
BUDGET = 1 << 24
"""Numbers in a block, about: 64 MiB."""
EXACT = 1 << 24
"""float32 counts so far without rounding."""

Keys = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Sample:
    """Which images a result is on, and which of them held: all that ranking needs."""

    images: bytes
    """A digest of `domain` and `keys`: equal for results on the same images."""
    domain: str
    """Keys of different domains never mean the same image."""
    keys: Keys
    """(n,), ascending; position in the split and label in one number."""
    robust: Column
    """(n,)."""

    @classmethod
    def of(cls, result: Result) -> Sample:
        """What ranking needs of a result, in 9 bytes an image."""
        examples, data = result.examples, result.dataset
        n = len(examples.index)
        keys = np.fromiter(examples.index, np.int64, n) * MANY
        keys += np.fromiter(examples.label, np.int64, n)
        held = robust(examples)
        if n and not (keys[:-1] < keys[1:]).all():
            order = keys.argsort()
            keys, held = keys[order], held[order]
        # Folders of one name need not hold the same images.
        domain = data.sha256 if data.name.startswith(PLACES) else ""
        images = hashlib.blake2b(keys.tobytes(), key=domain.encode()).digest()
        return cls(images, domain, keys, held)


@dataclass(frozen=True)
class Place:
    """Where one result stands among comparable ones."""

    rank: int
    """1 plus the number of results that are shown to be more robust."""
    last: int
    """The number of results less those that are shown to be less robust: the rank if
    all ties went against it."""


def places(samples: Sequence[Sample]) -> list[Place]:
    """Ranks results of one dataset, threat model and battery.

    Which of two is better is for their test to say, on the images that both have. Two
    results of equal rank need not tie, and a rank may be shared by results that differ
    from one another, since "not shown to differ" is not transitive.
    """
    beaten, beats = np.zeros((2, len(samples)), dtype=np.int64)
    grid = _Grid.of(samples)
    for first, second, wins in grid.blocks():
        beats[first] += (wins > 0).sum(axis=1)
        beaten[first] += (wins < 0).sum(axis=1)
        if first != second:
            beats[second] += (wins < 0).sum(axis=0)
            beaten[second] += (wins > 0).sum(axis=0)
    ranks, lasts = 1 + beaten, len(samples) - beats
    pairs = zip(ranks.tolist(), lasts.tolist(), strict=True)
    return [Place(rank, last) for rank, last in pairs]


@dataclass(frozen=True)
class _Grid:
    """Results by images, of which a block at a time is written out."""

    samples: Sequence[Sample]
    columns: dict[bytes, Keys]
    """By `Sample.images`: where these stand in the matrix."""
    width: int

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> _Grid:
        sets = {sample.images: sample for sample in samples}
        columns: dict[bytes, Keys] = {}
        width = 0
        for domain in dict.fromkeys(sample.domain for sample in sets.values()):
            own = {key: s.keys for key, s in sets.items() if s.domain == domain}
            union = np.unique(np.concatenate(list(own.values())))
            columns |= {k: width + union.searchsorted(keys) for k, keys in own.items()}
            width += len(union)
        return cls(samples, columns, width)

    def blocks(self) -> Iterator[tuple[slice, slice, npt.NDArray[np.int8]]]:
        """Rows, other rows, and which of each pair is better: 1 the first, -1 the
        other, 0 neither. Each pair of blocks comes once."""
        rows = min(max(BUDGET // max(self.width, 1), 1), ROWS)
        cuts = [
            slice(at, min(at + rows, len(self.samples)))
            for at in range(0, len(self.samples), rows)
        ]
        for i, first in enumerate(cuts):
            a = self._written(first)
            for second in cuts[i:]:
                b = a if second == first else self._written(second)
                yield first, second, self._wins(first, second, a, b)

    def _written(self, rows: slice) -> tuple[Matrix, Matrix]:
        """(rows, images) twice: which images held, which were measured."""
        kind = np.float32 if self.width < EXACT else np.float64
        held, measured = np.zeros((2, rows.stop - rows.start, self.width), kind)
        for at, sample in enumerate(self.samples[rows]):
            columns = self.columns[sample.images]
            held[at, columns] = sample.robust
            measured[at, columns] = 1
        return held, measured

    def _wins(
        self,
        first: slice,
        second: slice,
        a: tuple[Matrix, Matrix],
        b: tuple[Matrix, Matrix],
    ) -> npt.NDArray[np.int8]:
        (held_a, measured_a), (held_b, measured_b) = a, b
        both = held_a @ held_b.T
        if len(self.columns) == 1:  # all on the same images: one product is enough
            only_a = held_a.sum(axis=1)[:, None] - both
            only_b = held_b.sum(axis=1) - both
            return better(_whole(only_a), _whole(only_b))
        only_a = held_a @ measured_b.T - both
        only_b = measured_a @ held_b.T - both
        wins = better(_whole(only_a), _whole(only_b))
        apart = measured_a @ measured_b.T == 0
        for i, j in zip(*(axis.tolist() for axis in apart.nonzero()), strict=True):
            pair = self.samples[first.start + i], self.samples[second.start + j]
            wins[i, j] = _unpaired(*pair)
        return wins


def _whole(counts: Matrix) -> Counts:
    return counts.astype(np.int64)


def _unpaired(a: Sample, b: Sample) -> int:
    """As `better`, of two results that share no image."""
    counts = [(int(s.robust.sum()), len(s.robust)) for s in (a, b)]
    low, high = sorted(counts)  # so that each pair of counts is tested once
    if fisher(*low, *high) >= LEVEL:
        return 0
    (k_a, n_a), (k_b, n_b) = counts
    return 1 if k_a * n_b > k_b * n_a else -1
