"""What an attack works on: the examples still standing, and a network to ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robrep_eval.attacks.losses import Loss
from zoo.margins import margin
from zoo.threat import ThreatModel

ITSELF = "the classifier itself"
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
        kind: What the module is, for the record.
        why: Why it is not a faster copy.
    """

    def __init__(
        self,
        module: nn.Module,
        memory: torch.memory_format,
        guard: float = 0.0,
        kind: str = ITSELF,
        why: str = "",
    ) -> None:
        self.module = module
        self.format = memory
        self.guard = guard
        self.kind = kind
        self.why = why
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
        return wide(torch.cat(outputs) if len(outputs) > 1 else outputs[0])

    def gradient(
        self, x: Tensor, objective: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, `objective(logits)` (n,), and its gradient by the images."""
        self.forward_rows += len(x)
        self.backward_rows += len(x)
        with torch.enable_grad():
            leaf = x.detach().contiguous(memory_format=self.format).requires_grad_()
            logits = wide(self.module(leaf))
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
            logits = wide(self.module(leaf))
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


def wide(logits: Tensor) -> Tensor:
    """Half-precision logits as float32: the losses need its range."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
