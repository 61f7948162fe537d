"""Who draws what: the random numbers of the attacks.

Two kinds. `PerExample` is a counter-based generator: each number is a hash of the
seed, the example, the attack, the run within it, the step and the position, so no
outcome depends on batch size, order, sharding or resume. `Official` replays what
AutoAttack draws for one batch (one generator, seeded anew per attack, shared by the
rows of the batch), for comparing verdicts with the reference example by example.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

Randomness = Literal["per-example", "official-rng"]
"""Which of the two kinds an attack draws."""
Kind = Literal["uniform", "normal"]
Rows = Callable[[Tensor], Tensor]
"""Maps task numbers (n,) to their draws (n, *shape), float32."""

SHARED_DRAWS = 128
"""Draws common to all examples that are made at once; most steps need no more."""

_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX2 = 0x94D049BB133111EB - 2**64


class Noise(Protocol):
    """The draws of one attack, in the order in which the attack asks for them."""

    def images(self, kind: Kind, run: int, ids: Tensor, shape: tuple[int, ...]) -> Rows:
        """Draws of `shape` for each of the tasks that belong to `ids`.

        Args:
            kind: Uniform in [0, 1), or standard normal.
            run: Number of the restart or target within the attack.
            ids: Position of each task's example in the published split.
            shape: Of one draw.
        """

    def discard(self, kind: Kind, count: int, shape: tuple[int, ...]) -> None:
        """Passes over `count` draws that the reference makes and never uses."""

    def steps(
        self, run: int, ids: Tensor, steps: int, width: int
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """`width` uniforms for each (task, step): f(tasks (n,), steps (n,)) -> (n, w).

        Official: the same for all tasks of the batch.
        """

    def shared(self, run: int) -> Callable[[int], Callable[[], float]]:
        """Uniforms common to all examples: f(step) gives single draws in order."""

    def signs(self, run: int, ids: Tensor, channels: int) -> Callable[..., Tensor]:
        """f(tasks (n,), step) -> +-1 as (n, channels), drawn in that order."""


class PerExample:
    """Counter-based draws; see the head of this file.

    SplitMix64 (Steele, Lea & Flood 2014, doi 10.1145/2660193.2660195): number j of
    the stream with key k is mix(k + j * gamma). The key is itself a chain of mixes
    over seed, attack, run, example and step, so streams start at unrelated places of
    the period 2^64. Words are int64, whose sums and products wrap; draws are made where
    the task numbers are.

    Args:
        seed: Of the run.
        attack: Name of the attack, so that attacks do not share numbers.
    """

    def __init__(self, seed: int, attack: str) -> None:
        name = int.from_bytes(hashlib.sha256(attack.encode()).digest()[:8], "little")
        self.key = _chain(_words(seed), _words(name))

    def images(self, kind: Kind, run: int, ids: Tensor, shape: tuple[int, ...]) -> Rows:
        keys = self._keys(run, ids)
        size = math.prod(shape)

        def rows(tasks: Tensor) -> Tensor:
            uniform = _uniforms(keys.to(tasks.device)[tasks], size)
            if kind == "normal":
                # Shifted to the middle of its cell, so that 0 does not give -inf.
                uniform = torch.special.ndtri(uniform + 2.0**-25)
            return uniform.float().view(-1, *shape)

        return rows

    def discard(self, kind: Kind, count: int, shape: tuple[int, ...]) -> None:
        """Nothing to pass over: no draw depends on another."""

    def steps(
        self, run: int, ids: Tensor, steps: int, width: int
    ) -> Callable[[Tensor, Tensor], Tensor]:
        keys = self._keys(run, ids)

        def draw(tasks: Tensor, step: Tensor) -> Tensor:
            mine = keys.to(tasks.device)[tasks]
            return _uniforms(_chain(mine, step), width).float()

        return draw

    def shared(self, run: int) -> Callable[[int], Callable[[], float]]:
        of_run = _chain(self.key, _words(run))

        def at(step: int) -> Callable[[], float]:
            key = _chain(of_run, _words(step))
            blocks = itertools.count(step=SHARED_DRAWS)
            numbers = (
                number
                for first in blocks
                for number in _uniforms(key, SHARED_DRAWS, first)[0].tolist()
            )
            return lambda: next(numbers)

        return at

    def signs(self, run: int, ids: Tensor, channels: int) -> Callable[..., Tensor]:
        draw = self.steps(run, ids, 0, channels)

        def rows(tasks: Tensor, step: int) -> Tensor:
            return (draw(tasks, torch.full_like(tasks, step)) * 2 - 1).sign()

        return rows

    def _keys(self, run: int, ids: Tensor) -> Tensor:
        return _chain(_chain(self.key, _words(run)), ids.cpu().long())


class Official:
    """AutoAttack's own draws for one batch: a CPU generator, seeded per attack.

    A local generator gives the values of the seeded global one, so nothing global
    is touched. Draws are made at once for all rows, in the reference's order.

    Args:
        seed: The integer that the reference would be given.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def images(self, kind: Kind, run: int, ids: Tensor, shape: tuple[int, ...]) -> Rows:
        draws = self._draw(kind, (len(ids), *shape))
        return lambda tasks: draws[tasks.cpu()]

    def discard(self, kind: Kind, count: int, shape: tuple[int, ...]) -> None:
        self._draw(kind, (count, *shape))

    def steps(
        self, run: int, ids: Tensor, steps: int, width: int
    ) -> Callable[[Tensor, Tensor], Tensor]:
        # Uniforms drawn one by one or as one table are the same numbers.
        table = self._draw("uniform", (steps, width))
        return lambda _tasks, step: table[step.cpu()]

    def shared(self, run: int) -> Callable[[int], Callable[[], float]]:
        return lambda _step: lambda: float(self._draw("uniform", (1,)))

    def signs(self, run: int, ids: Tensor, channels: int) -> Callable[..., Tensor]:
        def rows(tasks: Tensor, step: int) -> Tensor:
            shape = (len(tasks), channels, 1, 1)
            return (self._draw("uniform", shape) * 2 - 1).sign().flatten(1)

        return rows

    def _draw(self, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        draw = torch.rand if kind == "uniform" else torch.randn
        return draw(shape, generator=self.generator)


def noise_of(randomness: Randomness, seed: int, attack: str) -> Noise:
    """What one attack draws."""
    if randomness == "official-rng":
        return Official(seed)
    return PerExample(seed, attack)


def _words(number: int) -> Tensor:
    """The number modulo 2^64 as a word, (1,)."""
    number %= 2**64
    return torch.tensor([number - 2**64 if number >= 2**63 else number])


def _shifted(words: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in."""
    return (words >> bits).bitwise_and_(2 ** (64 - bits) - 1)


def _mix(words: Tensor) -> Tensor:
    """The finaliser of SplitMix64; arithmetic modulo 2^64."""
    words = (words ^ _shifted(words, 30)).mul_(_MIX1)
    words = (words ^ _shifted(words, 27)).mul_(_MIX2)
    return words ^ _shifted(words, 31)


def _chain(keys: Tensor, more: Tensor) -> Tensor:
    """New keys from keys and one more coordinate each."""
    return _mix(_mix(keys + _GAMMA) ^ _mix(more * _GAMMA + _MIX1))


def _uniforms(keys: Tensor, size: int, first: int = 0) -> Tensor:
    """(n, size) float64 numbers from number `first`, multiples of 2^-24 in [0, 1)."""
    counters = torch.arange(first + 1, first + size + 1, device=keys.device) * _GAMMA
    words = _mix(keys.unsqueeze(1) + counters)
    # 24 bits, as torch.rand gives for float32: all values are exact and below 1.
    return _shifted(words, 40).double() * 2.0**-24
