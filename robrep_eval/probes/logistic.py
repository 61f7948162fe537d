"""Multinomial logistic regression: the solver behind every linear probe.

Features are read block by block, so that memory does not grow with their number; small
sets are kept as the solver wants them. Several processes compute the sums of one fit
(`robrep_eval.probes.team`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robrep_eval.probes.rows import Rows
from robrep_eval.probes.team import ALONE, Team
from zoo.threads import fitting_threads

CACHED_BYTES = 1 << 28
"""Of float64 features on principal axes that are kept rather than made in each pass."""
NO_VARIANCE = 1e-13
"""Of principal axes that are left out, beside the largest variance."""


def fit_linear(
    z: Tensor,
    y: Tensor,
    *,
    classes: int,
    l2: float,
    tolerance: float = 1e-6,
    max_iterations: int = 5000,
) -> nn.Linear:
    """Multinomial logistic regression, run to convergence; deterministic.

    Minimises the mean cross-entropy plus l2 / 2 * ||V||^2, where V are the weights on
    standardised features (zero mean, unit deviation); the standardisation is folded
    into the returned layer, which acts on plain features.

    Args:
        z: Features (N, d).
        y: Labels (N,) in [0, classes).
        classes: Number of classes, of which some may be absent from `y`.
        l2: Penalty per example.
        tolerance: Largest gradient coordinate at the solution, on principal axes in
            which the penalised problem has unit curvature, or about.
        max_iterations: Of L-BFGS.

    Returns:
        The layer, frozen, where `z` is; losses and gradients are computed there too, in
        float64.
    """
    problem = Logistic(Rows.of(z, y), classes)
    return problem.head(problem.solve(l2, tolerance, max_iterations))


class Logistic:
    """The problem of `fit_linear` on some features, for any penalty.

    Args:
        rows: Features and labels.
        classes: Number of classes.
        team: Processes that compute it together, each of which has all rows at hand.
    """

    def __init__(self, rows: Rows, classes: int, team: Team = ALONE) -> None:
        self.rows, self.classes, self.team = rows, classes, team
        self.groups = rows.groups(classes)
        with self._threads():
            self._prepare()

    def _threads(self) -> AbstractContextManager[None]:
        return fitting_threads(len(self.rows) * (self.rows.dim + 1) * self.classes)

    def _prepare(self) -> None:
        """Principal axes of standardised features, in which the problem is round.

        In plain coordinates L-BFGS needs thousands of steps where a few directions hold
        most of the variance. An axis without any has weight 0 at the solution.
        """
        d, n = self.rows.dim, len(self.rows)
        self.center = self._total(lambda z, _: z.sum(dim=0), (d,)) / n
        moment = self._total(lambda z, _: _squares(z - self.center), (d, d)) / n
        scale = moment.diagonal().clamp(min=0).sqrt()
        floor = 1e-8 * max(1.0, float(scale.max()))
        self.scale = torch.where(scale > floor, scale, 1.0)  # constant ones stay zero
        variances, axes = torch.linalg.eigh(moment / self.scale / self.scale[:, None])
        kept = variances > NO_VARIANCE * variances.amax().clamp(min=1e-300)
        self.variances, self.axes = variances[kept].clamp(min=0), axes[:, kept]
        self.cached: dict[int, list[tuple[Tensor, Tensor]]] | None = None
        if 8 * n * len(self.variances) <= CACHED_BYTES:
            own = range(self.team.rank, self.groups, self.team.world)
            self.cached = {
                group: [
                    (((z - self.center) / self.scale) @ self.axes, y)
                    for z, y in self.rows.blocks(self.classes, group)
                ]
                for group in own
            }

    def _total(
        self, part: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]
    ) -> Tensor:
        """The sum of part(z, y) over all blocks, on the device."""

        def group(number: int) -> Tensor:
            found = torch.zeros(shape, dtype=torch.float64, device=self.rows.device)
            for z, y in self.rows.blocks(self.classes, number):
                found += part(z, y)
            return found

        return self.team.total(self.groups, group, shape).to(self.rows.device)

    def solve(
        self,
        l2: float,
        tolerance: float,
        max_iterations: int,
        start: Tensor | None = None,
    ) -> Tensor:
        """Minimises; see `fit_linear`.

        Args:
            l2: Penalty per example.
            tolerance: Largest gradient coordinate.
            max_iterations: Of L-BFGS.
            start: A solution for another penalty; all zeros by default.

        Returns:
            Weights on principal axes, and biases, (classes, r + 1).
        """
        curvature = self.variances + l2
        least = 1e-12 * max(1.0, float(curvature.max()))
        lengths = torch.ones(len(curvature) + 1).to(curvature)
        lengths[:-1] = curvature.clamp(min=least).sqrt()
        if start is None:
            start = curvature.new_zeros(self.classes, len(lengths))

        def objective(parameters: Tensor) -> tuple[float, Tensor]:
            weights = parameters.view(self.classes, -1) / lengths
            return self._loss(weights, l2, lengths)

        with self._threads():
            found = self._minimise(
                objective, (start * lengths).flatten(), tolerance, max_iterations
            )
        return found.view(self.classes, -1) / lengths

    def head(self, solution: Tensor) -> nn.Linear:
        """The layer on plain features."""
        weight = solution[:, :-1] @ self.axes.T / self.scale
        head = nn.Linear(self.rows.dim, self.classes, device=self.rows.device)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(solution[:, -1] - weight @ self.center)
        return head.requires_grad_(False)

    def _loss(
        self, weights: Tensor, l2: float, lengths: Tensor
    ) -> tuple[float, Tensor]:
        """Penalised mean cross-entropy, and its gradient in the solver's coordinates.

        The biases, in the last column, are not penalised.
        """
        plain = weights[:, :-1]
        if self.cached is None:
            plain = plain @ self.axes.T / self.scale
        plain, bias = plain.contiguous(), weights[:, -1]
        size = plain.numel()

        def group(number: int) -> Tensor:
            found = plain.new_zeros(size + self.classes + 1)
            for z, y in self._points(number):
                _add(found, z, y, plain, bias)
            return found

        shape = (size + self.classes + 1,)
        found = self.team.total(self.groups, group, shape).to(plain) / len(self.rows)
        gradient = found[:size].view(plain.shape)
        if self.cached is None:
            gradient = gradient / self.scale @ self.axes
        gradient = gradient + l2 * weights[:, :-1]
        both = torch.cat([gradient, found[size:-1, None]], dim=1) / lengths
        penalty = l2 * float(weights[:, :-1].square().sum()) / 2
        return float(found[-1]) + penalty, both.flatten()

    def _points(self, group: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Blocks of what the weights in `_loss` are for, and labels."""
        if self.cached is not None:
            return self.cached[group]
        blocks = self.rows.blocks(self.classes, group)
        return ((z.sub_(self.center), y) for z, y in blocks)

    def _minimise(
        self,
        objective: Callable[[Tensor], tuple[float, Tensor]],
        start: Tensor,
        tolerance: float,
        max_iterations: int,
    ) -> Tensor:
        """L-BFGS in the leading process; the others compute for it until it is done."""
        from scipy.optimize import minimize

        device = start.device
        message = torch.zeros(len(start) + 1, dtype=torch.float64)  # go on?, parameters

        def ask(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            message[0], message[1:] = 1.0, torch.from_numpy(flat)
            loss, gradient = objective(self.team.told(message)[1:].to(device))
            return loss, gradient.cpu().numpy()

        if not self.team.leads:
            while float(self.team.told(message)[0]):
                objective(message[1:].to(device))
            return message[1:].to(device)
        found = minimize(
            ask,
            start.cpu().numpy(),
            jac=True,
            method="L-BFGS-B",
            options={
                "gtol": tolerance,
                "ftol": 0.0,
                "maxiter": max_iterations,
                "maxfun": 2 * max_iterations,
                "maxcor": 20,
            },
        )
        message[0], message[1:] = 0.0, torch.from_numpy(found.x)
        return self.team.told(message)[1:].to(device)


def _squares(z: Tensor) -> Tensor:
    return z.T @ z


def _add(found: Tensor, z: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Adds a block's gradients for weights and biases, and its loss, to `found`."""
    size, rows = weight.numel(), torch.arange(len(y), device=y.device)
    log_p = torch.addmm(bias, z, weight.T).log_softmax(dim=1)  # (n, classes)
    found[-1] -= log_p[rows, y].sum()
    residual = log_p.exp_()
    residual[rows, y] -= 1
    found[:size].view(weight.shape).addmm_(residual.T, z)
    found[size:-1] += residual.sum(dim=0)
