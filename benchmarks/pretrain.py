"""Training speed of every method beside the bare passes it needs.

    OMP_NUM_THREADS=1 python -m benchmarks.pretrain

The peer runs, in the same process and interleaved step by step, the forward and
backward passes that the method declares (`Method.cost`) on the same networks (encoder
and, where the method has one, projector), batch, memory format and precision: forward
passes of fixed images, backward passes to the input, full training passes with the
optimiser's step, and nothing else. The ratio is what augmentation, losses, projections
onto the ball and bookkeeping leave of that speed. Every method has a process of its
own, so that its peak memory (libraries and data included) is its own too. A method that
trains one architecture alone is measured on that.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pretrain import batchnorm, methods
from pretrain.build import build_method
from pretrain.data import divide
from pretrain.methods.base import Cost
from pretrain.optimizer import build_optimizer
from pretrain.precision import precision
from pretrain.recipe import Recipe, validate
from pretrain.run_folder import TrainingFolder
from pretrain.session import Session, Surroundings
from robrep_eval.attacks.pgd import frozen
from zoo.datasets import load
from zoo.encoder import Encoder

WARM_UP = 3
"""Steps that are not counted."""


@dataclass(frozen=True)
class Speed:
    """Images per second, medians over steps; memory of the whole process."""

    method: float
    bare: float
    peak_mib: float


def main() -> None:
    """Prints one line per method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--arch", default="resnet_s8")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3, help="of the inner attack")
    parser.add_argument("--repeats", type=int, default=12, help="training steps timed")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--draws", default="image", choices=("image", "step"))
    parser.add_argument("--compile", action="store_true", help="the encoder")
    parser.add_argument("--methods", nargs="*", default=sorted(methods.registry()))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        print(_line(given.row, measure(given.row, given)))
        return
    print(
        f"{given.arch} on {given.data}, {given.precision}"
        f"{', compiled' * given.compile}, batch {given.batch}, {given.steps} attack "
        f"steps, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
    )
    header = f"{'method':18} {'images/s':>9} {'bare':>9} {'ratio':>6} {'peak MiB':>9}"
    print(header, flush=True)
    for name in given.methods:
        words = ["-W", "ignore", "-m", "benchmarks.pretrain", *sys.argv[1:]]
        subprocess.run([sys.executable, *words, "--row", name], check=True)


def _line(name: str, speed: Speed) -> str:
    ratio = speed.method / speed.bare
    return (
        f"{name:18} {speed.method:9.0f} {speed.bare:9.0f} {ratio:6.2f} "
        f"{speed.peak_mib:9.0f}"
    )


def measure(name: str, given: Any) -> Speed:
    """Interleaves steps of the method with its bare passes."""
    recipe = _recipe(name, given)
    data = divide(load(given.data, "train"), recipe)
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingFolder(Path(folder), recipe)
        teacher = _teacher(recipe, data.train) if recipe.teacher else None
        session = Session(recipe, data, run, Surroundings(), teacher, 0.0)
    session.module.train()
    batches = chain.from_iterable(session.batches.epoch(i) for i in count())
    bare = Bare(session.method.cost(recipe.attack), recipe, session)
    ours: list[float] = []
    theirs: list[float] = []
    peak = 0.0
    for step in range(given.repeats + WARM_UP):
        rows = next(batches)
        ours.append(_timed(lambda rows=rows, step=step: session.step(rows, step)))  # type: ignore[misc]
        if not theirs:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        theirs.append(_timed(lambda x=rows.x: bare(x)))  # type: ignore[misc]
    return Speed(
        method=recipe.batch / statistics.median(ours[WARM_UP:]),
        bare=recipe.batch / statistics.median(theirs[WARM_UP:]),
        peak_mib=peak,
    )


class Bare:
    """The passes of one step on the plain network, and the optimiser's step."""

    def __init__(self, cost: Cost, recipe: Recipe, session: Session) -> None:
        self.cost, self.recipe = cost, recipe
        self.method = method = session.method
        projector = batchnorm.collapsed(method.projector, batchnorm.CLEAN)
        self.network = nn.Sequential(method.export(), projector)
        self.network.to(memory_format=method.memory_format).requires_grad_(True)
        if recipe.compile:
            self.network[0].compile()
        self.optimizer = build_optimizer(self.network, recipe.optimizer)

    def __call__(self, x: Tensor) -> None:
        x = self.method.formatted(x)
        with precision(self.recipe, x.device):
            trained = self._forward(x)
        trained.square().mean().backward()
        self.optimizer.step()

    def _forward(self, x: Tensor) -> Tensor:
        trained, searched = round(self.cost.full), round(self.cost.to_input)
        plain = round(self.cost.forward) - trained - searched
        with frozen(self.network):
            with torch.no_grad():
                for _ in range(plain):
                    self.network(x)
            for _ in range(searched):
                leaf = x.detach().requires_grad_()
                torch.autograd.grad(self.network(leaf).sum(), leaf)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        return self.network(torch.cat([x] * trained))  # type: ignore[no-any-return]


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _recipe(name: str, given: Any) -> Recipe:
    kind = methods.get(name)
    taught = kind.needs_teacher(kind.Options())
    return validate(
        {
            "name": "benchmark",
            "method": name,
            "teacher": {"method": "simclr"} if taught else None,
            "data": given.data,
            "arch": kind.archs[0] if kind.archs else given.arch,
            "threat": {"norm": "Linf", "eps": 0.1},
            "attack": {"steps": given.steps},
            "batch": given.batch,
            "epochs": 100,
            "monitor": {"every": 0},
            "draws": given.draws,
            "precision": given.precision,
            "compile": given.compile,
        }
    )


def _teacher(recipe: Recipe, train: Any) -> Encoder:
    """An untrained network: speed does not depend on the weights."""
    other = recipe.model_copy(update={"method": "simclr", "teacher": None})
    encoder: nn.Module = build_method(other, train, None).encoder
    assert isinstance(encoder, Encoder)
    return encoder.eval()


if __name__ == "__main__":
    main()
