"""The linear probe on features of several sizes, and scikit-learn on the same."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.scale.usage import Usage

L2, TOLERANCE, ROWS = 1e-3, 1e-4, 4096
"""The penalty per example, the largest gradient coordinate, features of a file."""
STEPS = {"lbfgs": 500, "saga": 30}
"""At most, of scikit-learn; an epoch of saga is a step."""


def fit(given: argparse.Namespace, folder: Path, size: int) -> dict[str, float]:
    """Of features in files: one fit from zeros, by all processes together."""
    from robrep_eval.probes.logistic import Logistic
    from robrep_eval.probes.rows import Rows
    from robrep_eval.run.shards import Shards
    from zoo.files import read_tensors, write_tensors

    class Counted(Logistic):
        """Counts how often it walks over all features."""

        passes = 0

        def _loss(self, *given: Tensor | float) -> tuple[float, Tensor]:
            self.passes += 1
            return super()._loss(*given)  # type: ignore[arg-type]

    shards, paths = Shards.from_environment(), []
    with shards.team("making features") as team:
        for number, start in enumerate(range(0, size, ROWS)):
            paths.append(folder / f"{start:08d}.safetensors")
            if number % team.world == team.rank and not paths[-1].exists():
                z = features(min(ROWS, size - start), given, start)
                write_tensors(paths[-1], {"features": z}, {})
    y = torch.arange(size) % given.classes
    with shards.team("the fit") as team:
        mapped = [read_tensors(path)[0]["features"] for path in paths]
        usage = Usage()
        problem = Counted(Rows(mapped, y, given.device), given.classes, team)
        head = problem.head(problem.solve(L2, TOLERANCE, 5000))
        found = {"seconds": usage.seconds(), "core s of one process": usage.cores()}
        found |= {"passes": problem.passes, "peak MiB": usage.mebibytes()}
    found["features MiB"] = 4 * size * given.width / 2**20
    weight = head.weight.double()
    penalty = L2 / 2 * float((weight * problem.scale).square().sum())
    found["loss"] = penalty + _entropy(head.double(), problem.rows, given.classes)
    return found


def peer(given: argparse.Namespace, solver: str, size: int) -> dict[str, float]:
    """scikit-learn on the same features, standardised in memory."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    from robrep_eval.probes.rows import Rows

    usage = Usage()
    starts = range(0, size, ROWS)
    z = torch.cat([features(min(ROWS, size - s), given, s) for s in starts]).double()
    z = (z - z.mean(dim=0)) / z.std(dim=0, correction=0)
    y = torch.arange(size) % given.classes
    model = LogisticRegression(
        C=1 / (L2 * size), solver=solver, tol=TOLERANCE, max_iter=STEPS[solver]
    )
    timed = Usage()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(z.numpy(), y.numpy())
    found = {"seconds": timed.seconds(), "core s of one process": timed.cores()}
    found |= {"passes": float(model.n_iter_[0]), "peak MiB": usage.mebibytes()}
    head = nn.Linear(given.width, given.classes).double()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(model.coef_))
        head.bias.copy_(torch.from_numpy(model.intercept_))
        penalty = L2 / 2 * float(head.weight.square().sum())
    return found | {"loss": penalty + _entropy(head, Rows.of(z, y), given.classes)}


def features(count: int, given: argparse.Namespace, start: int) -> Tensor:
    """Points around the centres of their classes, float32 (count, width)."""
    centres = torch.randn(
        given.classes, given.width, generator=torch.Generator().manual_seed(0)
    )
    draws = torch.Generator().manual_seed(1 + start)
    y = torch.arange(start, start + count) % given.classes
    return centres[y] + 3 * torch.randn(count, given.width, generator=draws)


def _entropy(head: nn.Module, rows: object, classes: int) -> float:
    """Mean cross-entropy of all rows."""
    from robrep_eval.probes.rows import Rows

    assert isinstance(rows, Rows)
    total = 0.0
    with torch.no_grad():
        for z, y in rows.blocks(classes):
            total += float(nn.functional.cross_entropy(head(z), y, reduction="sum"))
    return total / len(rows)
