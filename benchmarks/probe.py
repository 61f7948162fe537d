"""Speed of the linear probe's solver beside scikit-learn's, on features of the zoo.

    OMP_NUM_THREADS=1 python -m benchmarks.probe

Both minimise the same penalised loss on the same standardised features in float64; what
each reached is printed beside its seconds, so that neither is fast by stopping early.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from robrep_eval.probes.linear import features
from robrep_eval.probes.logistic import fit_linear
from zoo.collection.references import LoadOptions
from zoo.collection.references import load as load_model
from zoo.datasets import load

TOLERANCE = 1e-6
MODELS = ("spectral-digits", "rocl-digits")


@dataclass(frozen=True)
class Fit:
    """What a solver reached, and when."""

    seconds: float
    loss: float
    gradient: float
    """Largest coordinate of the gradient on standardised features."""


def main() -> None:
    """Prints a line for each encoder and penalty."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="*", default=MODELS, help="names in the zoo")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int, help="training images")
    parser.add_argument("--l2", nargs="*", type=float, default=(1e-5, 1e-3))
    given = parser.parse_args()
    data = load(given.dataset, "train", data_dir=given.data_dir).take(given.limit)
    classes = len(data.classes)
    print(f"{len(data)} images of {data.name}, {torch.get_num_threads()} thread(s)")
    for name in given.models:
        options = LoadOptions(shape=data.shape, classes=classes)
        encoder = load_model(f"zoo:{name}", options).encoder
        assert encoder is not None, "the zoo holds encoders"
        z = features(encoder, data).double()
        z = (z - z.mean(dim=0)) / z.std(dim=0, correction=0).clamp(min=1e-8)
        for l2 in given.l2:
            ours, theirs = _ours(z, data.labels, classes, l2), _peer(z, data.labels, l2)
            print(
                f"{name}, {z.shape[1]} features, l2 {l2:g}: "
                f"{_told('robrep', ours)}; {_told('scikit-learn', theirs)}; "
                f"{theirs.seconds / ours.seconds:.1f} times as fast",
                flush=True,
            )


def _told(who: str, fit: Fit) -> str:
    return (
        f"{who} {fit.seconds:.2f} s, loss {fit.loss:.7f}, gradient {fit.gradient:.0e}"
    )


def _ours(z: Tensor, y: Tensor, classes: int, l2: float) -> Fit:
    began = time.perf_counter()
    head = fit_linear(z, y, classes=classes, l2=l2, tolerance=TOLERANCE)
    return _reached(head.weight, head.bias, z, y, l2, time.perf_counter() - began)


def _peer(z: Tensor, y: Tensor, l2: float) -> Fit:
    solver = LogisticRegression(C=1 / (l2 * len(z)), tol=TOLERANCE, max_iter=5000)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what was reached is printed
        solver.fit(z.numpy(), y.numpy())
    seconds = time.perf_counter() - began
    weight, bias = (torch.from_numpy(v) for v in (solver.coef_, solver.intercept_))
    return _reached(weight, bias, z, y, l2, seconds)


def _reached(
    weight: Tensor, bias: Tensor, z: Tensor, y: Tensor, l2: float, seconds: float
) -> Fit:
    weight, bias = (v.detach().double().requires_grad_() for v in (weight, bias))
    loss = nn.functional.cross_entropy(z @ weight.T + bias, y)
    loss = loss + l2 / 2 * weight.square().sum()
    gradients = torch.autograd.grad(loss, (weight, bias))
    largest = max(float(g.abs().max()) for g in gradients)
    return Fit(seconds, loss.item(), largest)


if __name__ == "__main__":
    main()
