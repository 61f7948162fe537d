"""Whether a copy of a classifier may stand for it: same logits, same gradients.

Tracing sees forward passes alone. It drops what a classifier says about its backward
pass (custom autograd functions, hooks, parts without gradients), and fixes what it
decides in Python. Where such a thing is seen, no copy is traced; and whatever copy is
made has to give the original's gradients.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn.functional import cosine_similarity, normalize

from robrep_eval.attacks.losses import cross_entropy, dlr
from robrep_eval.attacks.problem import Model
from robrep_eval.randomness import seeded
from zoo.soundness import GRADIENTS, REFUSED

NOISE = 4.0
"""More is allowed where the original's own gradient moves with the last bits of the
pixels: so many times as much."""
LARGE = 0.25
"""A relative change that no copy may make; by the last bits, the gradient of such an
image tells nothing."""
FEW = 0.25
"""Share of images that may change by more than the limit, where rounding decides
between the inputs of a maximum."""
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


@dataclass(frozen=True)
class Behaviour:
    """What a network gives for n images.

    `logits` (m, K), first all of them without a graph; `gradients` (n + 2, D), float64.
    """

    logits: Tensor
    gradients: Tensor


def behaviour(model: Model, x: Tensor, weights: Tensor) -> Behaviour:
    """Logits and gradients of all images at once, then of the first two alone.

    Args:
        model: The network.
        x: Images (n, C, H, W).
        weights: Of the logits in the sum to be differentiated, (n, K).
    """
    logits: list[Tensor] = []
    gradients: list[Tensor] = []
    with seeded(0, str(x.device)):
        for rows in (slice(len(x)), slice(1), slice(1, 2)):
            logits.append(model.logits(x[rows].clone()))
            summed = partial(_weighted, weights[rows])
            seen, _, gradient = model.gradient(x[rows], summed)
            logits.append(seen)
            gradients.append(gradient.flatten(1))
    return Behaviour(torch.cat(logits), torch.cat(gradients).double())


def _weighted(weights: Tensor, logits: Tensor) -> Tensor:
    return (logits * weights).sum(dim=1)


def directions(logits: Tensor) -> Tensor:
    """Weights of logits (n, K), of length one, as attacks differentiate them.

    In turn those of cross-entropy and of the difference of logits ratio, both at the
    predicted class; that class alone; and some at random.
    """
    at = logits.detach().clone().requires_grad_()
    y = logits.argmax(dim=1)
    with torch.enable_grad():
        found = [
            torch.autograd.grad(loss(at, y, y).sum(), at)[0]
            for loss in (cross_entropy, dlr)
        ]
    found.append(torch.zeros_like(logits).scatter(1, y.unsqueeze(1), 1.0))
    generator = torch.Generator().manual_seed(0)
    found.append(torch.randn(logits.shape, generator=generator).to(logits))
    turn = torch.arange(len(logits), device=logits.device)
    return normalize(torch.stack(found)[turn % len(found), turn], dim=1)


def last_bits(x: Tensor) -> Tensor:
    """The images with other last bits, within [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-1, 2, x.shape, generator=generator).to(x)
    return (x * (1 + bits * torch.finfo(x.dtype).eps)).clamp(0, 1)


@dataclass(frozen=True)
class Original:
    """A classifier's behaviour on some images, for copies to be held against."""

    x: Tensor
    weights: Tensor
    want: Behaviour
    noisy: Behaviour
    """On images with other last bits."""
    lost: str
    """What tracing would lose, in words; empty: nothing that was seen."""
    unsafe: str
    """Why no copy of any kind can stand for it; empty: one may."""

    def difference(self, model: Model) -> str:
        """How a copy differs, in words; empty: it does not."""
        got, want = behaviour(model, self.x, self.weights), self.want
        if got.logits.shape != want.logits.shape:
            return "its logits have another shape"
        if not close(got.logits, want.logits):
            return "its logits differ"
        size = want.gradients.norm(dim=1)
        if not bool(size.isfinite().all()):
            return "gradients are not finite"
        own = (self.noisy.gradients - want.gradients).norm(dim=1)
        known = own <= LARGE * size
        if float(known.float().mean()) < 0.5:
            return "gradients move with the last bits of the pixels"
        change = (got.gradients - want.gradients).norm(dim=1)
        floor = 1e-6 * float(size.max())
        limit = torch.maximum(GRADIENTS * size, NOISE * own).clamp(min=floor)
        wrong = known & ~(change <= limit)
        large = known & ~(change <= torch.maximum(LARGE * size, limit))
        if float(wrong.float().mean()) <= FEW and not bool(large.any()):
            return ""
        row = int(
            (change - limit).nan_to_num(torch.inf).where(wrong, -torch.inf).argmax()
        )
        ours, theirs = got.gradients[row], want.gradients[row]
        cosine = float(cosine_similarity(ours, theirs, dim=0))
        times = float(ours.norm() / theirs.norm())
        return f"its gradients differ (cosine {cosine:.3f}, length times {times:.3g})"


def examine(classifier: nn.Module, itself: Model, x: Tensor) -> Original:
    """What the original does.

    Args:
        classifier: In eval mode.
        itself: The same.
        x: Images (n, C, H, W).

    Raises:
        Exception: of any type, if it cannot be differentiated.
    """
    before = State(classifier)
    weights = directions(itself.logits(x.clone()))
    want = behaviour(itself, x, weights)
    with seeded(0, str(x.device)):
        again = itself.logits(x.clone())
    noisy = behaviour(itself, last_bits(x), weights)
    lost = untraceable(classifier, x[:2])
    unsafe = ""
    if State(classifier) != before:
        unsafe = "it changes what it holds"
    elif not close(again, want.logits[: len(x)]):
        unsafe = "the same images give other logits"
    return Original(x, weights, want, noisy, lost, unsafe)


def close(got: Tensor, want: Tensor) -> bool:
    """Whether logits are the same but for rounding, beside the largest of all."""
    if not torch.equal(got.isfinite(), want.isfinite()):
        return False
    got, want = got.nan_to_num(0, 0, 0), want.nan_to_num(0, 0, 0)
    scale = want.abs().max().clamp(min=1e-12)
    return bool((got - want).abs().max() <= REFUSED * scale)


def untraceable(classifier: nn.Module, x: Tensor) -> str:
    """What tracing would lose, in words; empty: nothing that is seen here."""
    if any(getattr(m, hooks, None) for m in classifier.modules() for hooks in _HOOKS):
        return "it has hooks"
    before = _random_states(x.device)
    with torch.enable_grad():
        logits = classifier(x.clone().requires_grad_())
    if _random_states(x.device) != before:
        return "it draws random numbers"
    if any(isinstance(node, BackwardCFunction) for node in _nodes(logits)):
        return "it has a backward pass of its own"
    return ""


def compiled(classifier: nn.Module) -> bool:
    """Whether a part is, by `torch.compile`: a copy would be compiled once more."""
    return any(
        hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None)
        for m in classifier.modules()
    )


def _nodes(output: Tensor) -> Iterator[Any]:
    """Every step of the backward pass."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(following for following, _ in node.next_functions)
            yield node


def _random_states(device: torch.device) -> tuple[bytes, ...]:
    """Where the global generators stand."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    drawn = pickle.dumps((np.random.get_state(), random.getstate()))
    return (*(state.numpy().tobytes() for state in states), drawn)


class State:
    """All that a module holds: equal to a later one if nothing was written since."""

    def __init__(self, module: nn.Module) -> None:
        self.tensors: list[Tensor] = []  # kept, so that no other takes their identity
        self.values: list[object] = []
        for part in module.modules():
            self._add(vars(part), depth=4)
            for tensor in (*part.parameters(False), *part.buffers(False)):
                self._add(tensor, depth=0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]

    def _add(self, value: object, depth: int) -> None:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            version = 0 if value.is_inference() else value._version
            self.values.append((id(value), version))
        elif isinstance(value, np.ndarray):
            self.values.append(value.tobytes())
        elif isinstance(value, (str, bytes, int, float, complex, type(None))):
            self.values.append(repr(value))
        elif isinstance(value, (dict, list, tuple, set)) or hasattr(value, "__len__"):
            self._add_all(value, depth)

    def _add_all(self, value: Any, depth: int) -> None:
        try:
            self.values.append(len(value))
            items = value.values() if isinstance(value, dict) else value
            if depth and isinstance(value, (dict, list, tuple)):
                for item in items:
                    self._add(item, depth - 1)
        except Exception:  # foreign containers may refuse
            self.values.append(None)
