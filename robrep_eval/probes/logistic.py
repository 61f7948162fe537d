"""Multinomial logistic regression: the solver behind every linear probe."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zoo.threads import fitting_threads


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
    with fitting_threads(len(z) * (z.shape[1] + 1) * classes):
        return _fit_linear(z, y, classes, l2, tolerance, max_iterations)


def _fit_linear(
    z: Tensor, y: Tensor, classes: int, l2: float, tolerance: float, max_iterations: int
) -> nn.Linear:
    from scipy.optimize import minimize

    y, points = y.to(z.device), z.double()
    center, scale = points.mean(dim=0), points.std(dim=0, correction=0)
    floor = 1e-8 * max(1.0, float(scale.max()))
    scale = torch.where(scale > floor, scale, 1.0)  # constant features stay zero
    points = (points - center) / scale
    axes, lengths = _axes(points, l2)
    points = points @ (axes / lengths)
    shape = (classes, points.shape[1] + 1)

    def objective(
        flat: npt.NDArray[np.float64],
    ) -> tuple[float, npt.NDArray[np.float64]]:
        parameters = torch.from_numpy(flat).to(z.device).view(shape)
        loss, gradient = _logistic(parameters, points, y, l2 / lengths**2)
        return loss, gradient.flatten().cpu().numpy()

    found = minimize(
        objective,
        np.zeros(shape[0] * shape[1]),
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
    solution = torch.from_numpy(found.x).to(z.device).view(shape)
    weight = (solution[:, :-1] / lengths) @ axes.T / scale
    head = nn.Linear(points.shape[1], classes, device=z.device)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(solution[:, -1] - weight @ center)
    return head.requires_grad_(False)


def _axes(standard: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Coordinates in which the solver's problem is round: (d, d) axes, (d,) lengths.

    Principal axes in units of the root of their curvature, about their variance plus
    l2. In plain coordinates L-BFGS needs thousands of steps where a few directions hold
    most of the variance.
    """
    covariance = standard.T @ standard / len(standard)
    variances, axes = torch.linalg.eigh(covariance)
    curvature = variances.clamp(min=0) + l2
    least = 1e-12 * max(1.0, float(curvature.max()))
    return axes, curvature.clamp(min=least).sqrt()


def _logistic(
    parameters: Tensor, z: Tensor, y: Tensor, l2: Tensor
) -> tuple[float, Tensor]:
    """Penalised mean cross-entropy and its gradient; the bias is not penalised.

    `l2` (d,): penalty of each coordinate.
    """
    weight, bias = parameters[:, :-1], parameters[:, -1]
    log_p = torch.addmm(bias, z, weight.T).log_softmax(dim=1)  # (N, classes)
    loss = float(nn.functional.nll_loss(log_p, y))
    residual = log_p.exp()
    residual[torch.arange(len(y), device=y.device), y] -= 1
    residual /= len(y)
    gradient = torch.empty_like(parameters)
    gradient[:, :-1] = residual.T @ z + l2 * weight
    gradient[:, -1] = residual.sum(dim=0)
    return loss + float((l2 * weight.square()).sum()) / 2, gradient
