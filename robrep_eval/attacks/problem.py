"""What an attack works on: the examples still standing, and a model made fast.

`prepare` gives a fast copy for proposing. Its logits differ from the original's in the
last bits; the difference is measured, an example retires only beyond a multiple of
that, and every claim is checked again on the original.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from robrep_eval.attacks.fast_copy import fast_copy
from robrep_eval.attacks.losses import Loss, margin
from robrep_eval.memory import keep_freed_memory
from zoo.classifier import Classifier
from zoo.threat import ThreatModel

GUARD = 4.0
"""The guard, in multiples of the largest change of a logit seen (two would do)."""
CACHED_PIXELS = 96 * 28 * 28
"""Pixels per physical batch on a CPU: of four small ResNets at 28x28 and 32x32, on one
and two cores, each was at its best here or within 5% of it (32 images of 28x28 cost
10-40% more, 256 of them up to 40% more where activations leave the cache)."""
DEVICE_PIXELS = 64 * 224 * 224
"""The same on other devices, so that large images do not exhaust their memory."""


class Model:
    """Logits and gradients of a prepared classifier; counts the passes it makes.

    Args:
        module: Images to logits; eval mode, frozen.
        memory: The layout in which images are handed over.
        guard: Margin within which a misclassification is not trusted.
    """

    def __init__(
        self, module: nn.Module, memory: torch.memory_format, guard: float = 0.0
    ) -> None:
        self.module = module
        self.format = memory
        self.guard = guard
        self.forward_rows = 0
        self.backward_rows = 0

    def logits(self, x: Tensor, batch_size: int | None = None) -> Tensor:
        """Logits without a graph, float32 or wider, in parts of `batch_size`."""
        self.forward_rows += len(x)
        with torch.no_grad():
            parts = x.split(batch_size) if batch_size else (x,)
            outputs = [
                self.module(p.contiguous(memory_format=self.format)) for p in parts
            ]
        return _wide(torch.cat(outputs) if len(outputs) > 1 else outputs[0])

    def gradient(
        self, x: Tensor, objective: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, `objective(logits)` (n,), and its gradient by the images."""
        self.forward_rows += len(x)
        self.backward_rows += len(x)
        with torch.enable_grad():
            leaf = x.detach().contiguous(memory_format=self.format).requires_grad_()
            logits = _wide(self.module(leaf))
            value = objective(logits)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return logits.detach(), value.detach(), gradient.contiguous()

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, K), and gradients (n, m, C, H, W) of those of `classes` (n, m).

        One forward pass, and one backward pass per column of `classes`.
        """
        self.forward_rows += len(x)
        self.backward_rows += classes.numel()
        with torch.enable_grad():
            leaf = x.detach().contiguous(memory_format=self.format).requires_grad_()
            logits = _wide(self.module(leaf))
            picked = logits.gather(1, classes)
            rows = [
                torch.autograd.grad(column.sum(), leaf, retain_graph=True)[0]
                for column in picked.unbind(dim=1)
            ]
        return logits.detach(), torch.stack([r.contiguous() for r in rows], dim=1)


@dataclass
class Problem:
    """Examples under attack, all on one device.

    `x` (n, C, H, W), `y` and `ids` (n,), `target` (n,) the class that targeted losses
    name (any class for others).
    """

    model: Model
    x: Tensor
    y: Tensor
    ids: Tensor
    threat: ThreatModel
    target: Tensor

    def objective(self, loss: Loss, y: Tensor, t: Tensor) -> Callable[[Tensor], Tensor]:
        """The loss as a function of logits alone."""
        return lambda logits: loss(logits, y, t)


def fooled(logits: Tensor, y: Tensor, guard: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows are misclassified, which of them beyond the guard, and the margins."""
    wrong = (logits.argmax(dim=1) != y) & logits.isfinite().all(dim=1)
    gap = margin(logits, y)
    return wrong, wrong & (gap <= -guard), gap


def physical_batch(x: Tensor, batch_size: int) -> int:
    """Rows per pass: no more than caches or memory hold, but at least 16."""
    budget = CACHED_PIXELS if x.device.type == "cpu" else DEVICE_PIXELS
    pixels = x.shape[-1] * x.shape[-2]
    return max(1, min(batch_size, max(16, budget // pixels)))


_prepared: WeakKeyDictionary[Classifier, Model] = WeakKeyDictionary()


def prepare(classifier: Classifier, *, exact: bool = False) -> Model:
    """A model for proposing, made once per classifier.

    The guard is measured on fixed images, so that it does not depend on the examples.

    Args:
        classifier: The original; not changed.
        exact: The original itself, without any rounding of its own: for replaying
            the reference.
    """
    if exact:
        return Model(classifier, torch.contiguous_format)
    if classifier not in _prepared:
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand((32, *classifier.shape), generator=generator)
        shades = torch.linspace(0, 1, 32).view(-1, 1, 1, 1)
        sample = (noise * shades).to(_device(classifier))
        with torch.no_grad():
            want = _wide(classifier(sample))
        if sample.device.type == "cpu":
            keep_freed_memory()
        model = Model(*fast_copy(classifier, sample, want))
        model.guard = GUARD * _spread(classifier, model, sample, want)
        _prepared[classifier] = model
    return _prepared[classifier]


def _device(module: nn.Module) -> torch.device:
    weights = next(module.parameters(), None)
    return torch.device("cpu") if weights is None else weights.device


def _wide(logits: Tensor) -> Tensor:
    """Half-precision logits as float32: the losses need its range."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _spread(classifier: Classifier, model: Model, x: Tensor, want: Tensor) -> float:
    """Largest change of a logit by batch composition and preparation."""
    parts = [want, model.logits(x), model.logits(x, max(1, len(x) // 3))]
    with torch.no_grad():
        alone = torch.cat([_wide(classifier(row[None])) for row in x[:4]])
    changes = [float((part - want).abs().max()) for part in parts[1:]]
    changes.append(float((alone - want[:4]).abs().max()))
    return max(changes)
