"""What an evaluation will cost, from a trial of seconds and from what is to be done.

Passes are counted from the settings of the attacks, as if no image fell: a run costs
less, the more do. Each kind of pass is timed on a few images on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from robrep_eval.attacks.base import Attack, needs_gradients
from robrep_eval.attacks.prepared import prepare
from robrep_eval.attacks.problem import Model, physical_batch
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.attacks.transfer import TransferAttack
from robrep_eval.probes.choice import held_out
from robrep_eval.probes.linear import FROZEN
from robrep_eval.probes.logistic import Logistic
from robrep_eval.probes.rows import Rows
from robrep_eval.run.chunk_size import CHUNK_BYTES
from robrep_eval.run.images import training_images
from robrep_eval.run.plan import Plan
from zoo.classifier import Classifier

TRIAL_SECONDS = 1.0
"""Of each kind of work, at least one pass."""
IMAGES = 32
"""That the trial reads."""
EVALUATIONS = 80
"""Of the probe's loss until it is fitted; 20 to 200 were met."""
HELD = 12
"""Tensors as large as the images that an attack holds."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of one evaluation, on one process of this machine."""

    images: int
    """That are attacked, if all are classified rightly."""
    training: int
    """That the probe is fitted on; 0 without one."""
    gradients: int
    """Forward and backward passes at most, for each image that stands."""
    queries: int
    """Forward passes at most, likewise."""
    uncounted: tuple[str, ...]
    """Attacks that do not say how many steps they take."""
    read: float
    """Seconds for one image: reading it with one process, ..."""
    forward: float
    """... a forward pass, ..."""
    gradient: float
    """... and one with its backward pass."""
    features: float
    """Seconds for the features of all images, ..."""
    fit: float
    """... and for the probe on them."""
    memory: int
    """Bytes beside the network and its activations, about."""
    disk: int
    """Bytes of features, and of adversarials if all images fall."""

    @property
    def attacks(self) -> float:
        """Seconds of the attacks at most."""
        each = self.gradients * self.gradient + self.queries * self.forward
        return self.images * (each + self.read)

    @property
    def seconds(self) -> float:
        """Of all that is counted, at most."""
        return self.features + self.fit + self.attacks

    def lines(self) -> list[str]:
        """For people."""
        read, forward, gradient = (
            f"{1e3 * value:.3g} ms"
            for value in (self.read, self.forward, self.gradient)
        )
        features, fit, attacks = map(hours, (self.features, self.fit, self.attacks))
        several = (f"{hours(self.seconds / n)} on {n}" for n in (1, 2, 4, 8))
        found = f"""{self.images} images, at most {self.gradients} gradients and \
{self.queries} queries each; {self.training} training images
an image: {read} to read, {forward} forward, {gradient} with its gradient
features {features}, probe {fit}, attacks at most {attacks} (less, the more images fall)
in all at most {", ".join(several)} processes, each on hardware like this
memory about {size(self.memory)} beside the network, disk at most {size(self.disk)}
measurements beside the attacks are not counted"""
        unknown = [f"not counted: {', '.join(self.uncounted)}"] * bool(self.uncounted)
        return [*found.splitlines(), *unknown]


def estimate(plan: Plan) -> Estimate:
    """Times a few passes; writes nothing.

    Args:
        plan: As `prepare` gives it.
    """
    data, device = plan.data, plan.request.settings.device
    settings = plan.request.settings
    classifier, width = _classifier(plan)
    count = min(IMAGES, len(data))
    read = _timed(lambda: data.integers(slice(count))) / count
    x = data.images(slice(count)).to(device)
    x = x.repeat(-(-physical_batch(x, settings.batch_size) // count), 1, 1, 1)
    x = x[: physical_batch(x, settings.batch_size)]
    model = prepare(classifier.to(device))
    forward = _timed(lambda: _seen(model, x)) / len(x)
    gradient = _timed(lambda: _ascended(model, x)) / len(x)
    steps = [(attack, most_steps(attack)) for attack in plan.battery.attacks]
    training, features, fit = 0, 0.0, 0.0
    if plan.loaded.encoder is not None:
        train = plan.training or training_images(plan.request, data)
        training = len(train)
        passes = training + len(data)
        each = (
            max(read / max(1, data.workers), forward)
            if data.workers
            else (read + forward)
        )
        features = passes * each
        fit = _fit_seconds(plan, train.labels, width)
    bytes_each = 2 if plan.request.probe.features == "float16" else 4
    image = 4 * prod(data.shape)
    return Estimate(
        images=len(data),
        training=training,
        gradients=sum(n or 0 for attack, n in steps if not _asks(attack)),
        queries=sum(n or 0 for attack, n in steps if _asks(attack)),
        uncounted=tuple(attack.name for attack, n in steps if n is None),
        read=read,
        forward=forward,
        gradient=gradient,
        features=features,
        fit=fit,
        memory=HELD * min(CHUNK_BYTES, image * min(len(data), settings.chunk_size)),
        disk=bytes_each * width * (training and training + len(data))
        + image * len(data),
    )


def most_steps(attack: Attack) -> int | None:
    """Gradients or queries for one image at most; None if the attack does not say, or
    they are of another network."""
    if isinstance(attack, TransferAttack):
        return None
    return _steps(attack.parameters)


def _steps(parameters: Mapping[str, Any]) -> int | None:
    if "rounds" in parameters:
        found = [_steps(each) for each in parameters["rounds"]]
        return None if None in found else sum(n for n in found if n is not None)
    if "steps" not in parameters:
        return None
    several = [parameters.get(key) or 1 for key in ("restarts", "targets", "averaged")]
    return int(parameters["steps"] * prod(several))


def _asks(attack: Attack) -> bool:
    """Whether its steps are forward passes alone."""
    return isinstance(attack, SquareAttack) or not needs_gradients(attack)


def _classifier(plan: Plan) -> tuple[Classifier, int]:
    """The one to be attacked, with a head of zeros in place of a probe; and d."""
    if plan.loaded.classifier is not None:
        return plan.loaded.classifier, 0
    encoder = plan.loaded.encoder
    assert encoder is not None
    classes = len(plan.data.classes)
    head = nn.Linear(encoder.dim, classes)
    made = Classifier(encoder, head, classes=classes, shape=encoder.spec.shape)
    return made, encoder.dim


def _seen(model: Model, x: Tensor) -> None:
    model.logits(x)
    _wait(x)


def _ascended(model: Model, x: Tensor) -> None:
    model.gradient(x, lambda logits: logits[:, 0])
    _wait(x)


def _wait(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)


def _fit_seconds(plan: Plan, y: Tensor, width: int) -> float:
    """Of all fits on clean features, by the time of one evaluation of the loss."""
    probe = plan.request.probe
    if probe.protocol not in FROZEN:
        return 0.0
    count, classes = min(len(y), 2048), len(plan.data.classes)
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(count, width, generator=draws).to(plan.request.settings.device)
    problem = Logistic(Rows.of(z, y[:count]), classes)
    each = _timed(lambda: problem.solve(1e-3, 1e30, 1)) / count
    parts = held_out(y, probe.validation_share, probe.seed)
    rows = len(probe.penalties) * sum(len(fitting) for fitting, _ in parts) + len(y)
    return EVALUATIONS * each * rows


def _timed(work: Callable[[], object]) -> float:
    """Seconds of one call: the fastest of those that the trial has time for."""
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < TRIAL_SECONDS:
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return min(times)


def hours(seconds: float) -> str:
    """For people, in the unit that suits."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.2g} min" if seconds < 3600 else f"{seconds / 3600:,.3g} h"


def size(count: int) -> str:
    """Bytes, for people."""
    mebibytes = count / 2**20
    if mebibytes < 1024:
        return f"{mebibytes:.3g} MiB"
    return f"{mebibytes / 1024:,.4g} GiB"
