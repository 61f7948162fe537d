"""Where a run of APGD begins: draws for its first point."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robrep_eval.attacks.noise import Rows
from robrep_eval.attacks.turn import Turn

Start = Literal["random", "stripes", "clean", "diversified"]
"""Anywhere in the ball; at its edge in stripes of either sign for each channel, as
Square starts (arXiv 1912.00049), horizontal ones in even runs and vertical ones in odd;
at the clean image; or anywhere, and from there some steps up a random combination of
logits (Tashiro et al. 2020, arXiv 2003.06878). In L1, where a start is sparse, random
only."""
OPENING = 7
"""Steps up the random combination."""
FAR = 2**20
"""Added to the number of a run for its second draws."""


def noise(start: Start, turn: Turn) -> Rows:
    """Draws of the first points: uniform in [0, 1] for Linf, else normal."""
    if start == "clean":
        middle = 0.5 if turn.start_kind == "uniform" else 0.0
        shape = tuple(turn.problem.x.shape[1:])
        return lambda tasks: torch.full((len(tasks), *shape), middle)
    return _stripes(turn) if start == "stripes" else turn.start_noise()


def weights(turn: Turn) -> Rows:
    """The random combinations (n, classes): weights in [-1, 1), none positive for the
    label."""
    label = turn.problem.y.cpu()

    def of_run(run: int) -> Rows:
        return turn.noise.images("uniform", FAR + run, turn.ids, (turn.classes,))

    draws = turn.each_run(of_run, (turn.classes,))

    def rows(tasks: Tensor) -> Tensor:
        drawn, own = 2 * draws(tasks) - 1, label[tasks].unsqueeze(1)
        return drawn.scatter(1, own, -drawn.gather(1, own).abs())

    return rows


def _stripes(turn: Turn) -> Rows:
    """Signs in stripes; for Linf as 0 and 1, the ends of its uniform noise."""
    shape = tuple(turn.problem.x.shape[1:])
    channels, height, width = shape

    def of_run(run: int) -> Rows:
        one = (channels, height, 1) if run % 2 == 0 else (channels, 1, width)
        drawn = turn.noise.images("uniform", run, turn.ids, one)

        def rows(examples: Tensor) -> Tensor:
            signs = (2 * drawn(examples) - 1).sign().expand(-1, *shape)
            return (signs + 1) / 2 if turn.start_kind == "uniform" else signs

        return rows

    return turn.each_run(of_run)
