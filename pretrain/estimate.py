"""What a pretraining will cost, from a few timed steps and from its recipe."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pretrain import distributed, methods, stable
from pretrain.build import (
    Workload,
    check,
    check_clusters,
    check_start,
    find_teacher,
    plan,
)
from pretrain.data import Split, divide
from pretrain.recipe import Recipe
from pretrain.run_folder import TrainingFolder
from pretrain.session import Session, Surroundings
from pretrain.start import find_start
from pretrain.train import teacher_recipe, training_images
from robrep_eval.run.estimate import hours, size
from zoo.encoder import Encoder
from zoo.threads import fitting_threads, network_work

STEPS = 3
"""That are timed, after one that is not."""
FEW = 2048
"""Images of the trial, or as many as it has steps for."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of one recipe, on one process of this machine."""

    name: str
    images: int
    """In training."""
    batch: int
    workload: Workload
    step: float
    """Seconds of an optimiser step, reading its images included."""
    memory: int
    """Bytes: at most on the GPU; without one, of the process."""
    disk: int
    """Bytes of a checkpoint, of which two exist for a moment."""

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return self.workload.steps * self.step

    def lines(self) -> list[str]:
        """For people."""
        work = self.workload
        several = (f"{hours(self.seconds / n)} on {n}" for n in (1, 2, 4, 8))
        return f"""{self.name}: {self.images} images, {work.epochs} epochs of \
{work.steps_per_epoch} steps, {work.passes:.4g} passes per image
  a step of {self.batch} images takes {self.step:.3g} s, {self.batch / self.step:.4g} \
images/s; the run {", ".join(several)} processes, each on hardware like this
  memory {size(self.memory)}, disk {size(2 * self.disk)}; looks at held-out images, \
pseudo-labels and a stable end are not counted""".splitlines()


def estimate(recipe: Recipe, around: Surroundings) -> list[Estimate]:
    """Times a few steps of a recipe, and of its teacher before it; writes nothing.

    Args:
        recipe: Validated.
        around: Device, data folder, workers.

    Raises:
        UserError: as `pretrain.train.train`.
    """
    return _estimate(recipe, around)[0]


def _estimate(recipe: Recipe, around: Surroundings) -> tuple[list[Estimate], Encoder]:
    """Also gives an encoder as the recipe makes it, untrained."""
    data = training_images(recipe, around)
    check(recipe, data)
    parts = divide(data, recipe)
    check_clusters(recipe, parts.train)
    device = distributed.device(around.device)
    start = find_start(recipe, parts.train, device)
    check_start(recipe, start, data.shape)
    found: list[Estimate] = []
    teacher, passes = None, 0.0
    if recipe.teacher is None and start is not None:
        needed = methods.get(recipe.method).needs_teacher(methods.options(recipe))
        teacher = start.encoder if needed else None
    elif isinstance(recipe.teacher, str):
        teacher, passes = find_teacher(recipe.teacher)
    elif recipe.teacher is not None:
        found, teacher = _estimate(teacher_recipe(recipe, recipe.teacher), around)
        passes = found[-1].workload.passes
    few = parts.train.take(max(FEW, (STEPS + 1) * recipe.batch))
    here = replace(around, device=str(device))
    with tempfile.TemporaryDirectory(prefix="robrep-") as folder:
        run = TrainingFolder(Path(folder) / "run", recipe)
        small = Split(train=few, held_out=parts.held_out)
        session = Session(recipe, small, run, here, teacher, passes, start)
        with fitting_threads(network_work(session.method.encoder, data.shape)):
            step = _step(session)
    workload = plan(
        recipe,
        session.method,
        len(parts.train) // recipe.batch,
        passes,
        stable.passes(recipe.stable, parts.train),
    )
    own = Estimate(
        name=recipe.name,
        images=len(parts.train),
        batch=recipe.batch,
        workload=workload,
        step=step,
        memory=_memory(device),
        disk=_bytes(session),
    )
    encoder = session.method.encoder
    assert isinstance(encoder, Encoder), "a method trains one"
    return [*found, own], encoder


def _step(session: Session) -> float:
    """Seconds of a step, the mean of a few."""
    session.module.train()
    began, done = time.perf_counter(), 0
    batches = session.batches.epoch(0)
    for number, rows in zip(range(STEPS + 1), batches, strict=False):
        values = session.step(rows, number)  # numbers: the device has finished
        assert values
        if number == 0 and len(session.batches) > 1:
            began = time.perf_counter()
        else:
            done += 1
    return (time.perf_counter() - began) / done


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bytes(session: Session) -> int:
    """Of the tensors of a checkpoint."""
    tensors = [*session.method.state_dict().values()]
    for state in session.optimizer.state_dict()["state"].values():
        tensors += [
            value for value in state.values() if isinstance(value, torch.Tensor)
        ]
    if session.average is not None:
        tensors += session.average.module.state_dict().values()
    return sum(value.numel() * value.element_size() for value in tensors)
