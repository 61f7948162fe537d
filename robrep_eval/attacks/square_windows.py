"""Square attack in L2 and L1: the perturbation's mass wanders between windows.

All rows go through the queries together, since the reference shares the windows'
positions among them. With per-example randomness positions and tiles are a function
of seed and query alone, and the signs of seed, example and query: the outcome is
independent of the batch all the same.

Source: Andriushchenko et al. 2020, arXiv 1912.00049, algorithm 3 (L2); Croce & Hein
2021, arXiv 2103.01208, section 5 (L1).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robrep_eval.attacks.noise import Noise
from robrep_eval.attacks.pool import State
from robrep_eval.attacks.problem import Problem
from robrep_eval.attacks.square_schedule import sides
from zoo.ball import lengths, project_l1
from zoo.margins import margin

_TINY = 1e-12
GRID = 5
"""Tiles per side of the start."""
_INSIDE = 1 - 1e-6  # the L1 projection aims a little within the ball


class SquareWindows:
    """The program of one run.

    Args:
        problem: The examples; norm L2 or L1.
        noise: Positions, tiles and signs.
        run: Number of the restart.
        queries: Most queries after the first.
        guard: Margin beyond which a fooled row retires; 0: at a tie already.
        batch_size: Rows per forward pass.
    """

    clock = "query"
    lockstep = True

    def __init__(
        self,
        problem: Problem,
        noise: Noise,
        *,
        run: int,
        queries: int,
        guard: float,
        batch_size: int,
    ) -> None:
        self.problem = problem
        self.norm = problem.threat.norm
        self.steps = queries
        self.guard = guard
        self.batch_size = batch_size
        _, self.channels, height, width = problem.x.shape
        self.sides = sides(queries, height, width, 3)
        self.uniforms = noise.shared(run)
        self.uniform = self.uniforms(-1)
        self.signs = noise.signs(run, problem.ids, self.channels)
        self.tiles: dict[int, Tensor] = {}

    def begin(self, tasks: Tensor) -> State:
        x = self.problem.x[tasks]
        delta = self._start(x, tasks)
        if self.norm == "L2":
            image = self._onto_sphere(x, delta)
        else:
            image = x + project_l1(delta, x, self.problem.threat.eps * _INSIDE)
        n, y = len(x), self.problem.y[tasks]
        logits = self.problem.model.logits(image, self.batch_size)
        return {
            "task": tasks.to(x.device),
            "y": y,
            "clean": x,
            "image": image,
            "margin": margin(logits, y),
            "query": torch.zeros(n, dtype=torch.int64, device=x.device),
            "found": logits.argmax(dim=1) != y,
            "broken": ~logits.isfinite().all(dim=1),
        }

    def step(self, state: State) -> Tensor:
        """One query of every row that is not done."""
        s = state
        done = (s["margin"] <= -self.guard) | s["broken"]
        if bool(done.any()):
            return done  # they leave before signs are drawn for the rest
        query = int(s["query"][0])
        candidate = self._candidate(s, query)
        logits = self.problem.model.logits(candidate, self.batch_size)
        new = margin(logits, s["y"])
        s["broken"] |= ~logits.isfinite().all(dim=1)
        better = ((new < s["margin"]) | (new <= 0)) & ~s["broken"]
        rows = better.nonzero().flatten()
        s["margin"][rows] = new[rows]
        s["image"][rows] = candidate[rows]
        s["found"][rows] = (logits.argmax(dim=1) != s["y"])[rows]
        s["query"] += 1
        done = (s["margin"] <= -self.guard) | s["broken"]
        return done | (s["query"] >= self.steps)

    def _start(self, x: Tensor, tasks: Tensor) -> Tensor:
        """A grid of tiles with random signs."""
        delta = torch.zeros_like(x)
        height, width = x.shape[-2:]
        side = max(1, height // GRID)
        first = max(0, (height - side * GRID) // 2)
        number = -1
        self.uniform = self.uniforms(number)
        for row in range(height // side):
            for column in range(width // side):
                tile = self._tile(side)
                signs = self.signs(tasks, number).to(x).view(len(x), -1, 1, 1)
                top, left = first + row * side, first + column * side
                delta[:, :, top : top + side, left : left + side] += _fitting(
                    tile * signs, height - top, width - left
                )
                number -= 1
        return delta

    def _candidate(self, s: State, query: int) -> Tensor:
        side = self.sides[query]
        self.uniform = self.uniforms(query)
        x, delta = s["clean"], s["image"] - s["clean"]
        height, width = x.shape[-2:]
        first = self._window(side, height, width)
        second = self._window(side, height, width)
        tile = self._tile(side)
        signs = self.signs(s["task"], query).to(x).view(len(x), -1, 1, 1)
        both = torch.zeros(height, width, dtype=torch.bool, device=x.device)
        both[first] = True
        both[second] = True
        energy = self._per_channel(delta * both)
        old = delta[:, :, *first]
        fresh = tile * signs + old / (_TINY + self._per_channel(old))
        free = self._free(delta)
        fresh = fresh / (_TINY + self._per_channel(fresh))
        if self.norm == "L2":
            fresh = fresh * (free / self.channels + energy.square()).sqrt()
        else:
            fresh = fresh * (free / self.channels + energy) * self.channels
        delta[:, :, *second] = 0
        delta[:, :, *first] = fresh
        if self.norm == "L2":
            return self._onto_sphere(x, delta)
        return x + project_l1(delta, x, self.problem.threat.eps * _INSIDE)

    def _window(self, side: int, height: int, width: int) -> tuple[slice, slice]:
        top = self._integer(height - side)
        left = self._integer(width - side)
        return slice(top, top + side), slice(left, left + side)

    def _integer(self, high: int) -> int:
        return int(np.float32(high) * np.float32(self.uniform()))  # as in float32

    def _per_channel(self, delta: Tensor) -> Tensor:
        """Norm of each channel, (n, C, 1, 1)."""
        if self.norm == "L2":
            return delta.square().sum(dim=(-2, -1), keepdim=True).sqrt()
        return delta.abs().sum(dim=(-2, -1), keepdim=True)

    def _free(self, delta: Tensor) -> Tensor:
        """What the ball leaves unused: squared in L2; (n, 1, 1, 1)."""
        eps, size = self.problem.threat.eps, lengths(delta, self.norm)
        left = eps**2 - size.square() if self.norm == "L2" else eps - size
        return left.clamp(min=0).view(-1, 1, 1, 1)

    def _onto_sphere(self, x: Tensor, delta: Tensor) -> Tensor:
        size = lengths(delta, "L2").view(-1, 1, 1, 1)
        return (x + delta / (size + _TINY) * self.problem.threat.eps).clamp_(0, 1)

    def _tile(self, side: int) -> Tensor:
        """Two opposite pyramids side by side, or one above the other."""
        if side not in self.tiles:
            self.tiles[side] = _tile(side, self.norm).to(self.problem.x)
        tile = self.tiles[side]
        return tile.T if self.uniform() > 0.5 else tile


def _fitting(tile: Tensor, height: int, width: int) -> Tensor:
    return tile[..., :height, :width]


def _tile(side: int, norm: str) -> Tensor:
    """(side, side) of unit norm: positive upper half, negative lower half."""
    upper = _pyramid(side // 2, side, norm)
    tile = torch.cat([upper, -_pyramid(side - side // 2, side, norm)])
    return tile / (tile.square().sum().sqrt() if norm == "L2" else tile.abs().sum())


def _pyramid(height: int, width: int, norm: str) -> Tensor:
    """Nested rectangles of falling weight, of unit norm."""
    delta = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for layer in range(max(top, left) + 1):
        weight = 1.0 / (layer + 1) ** (2 if norm == "L2" else 4)
        rows = slice(max(top - layer, 0), min(top + layer + 1, height))
        columns = slice(max(left - layer, 0), min(left + layer + 1, width))
        delta[rows, columns] += weight
    return delta / (delta.square().sum().sqrt() if norm == "L2" else delta.abs().sum())
