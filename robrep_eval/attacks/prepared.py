"""A network made fast for proposing, or the classifier itself where that is not safe.

A copy's logits differ from the original's in the last bits; the difference is
measured, an example retires only beyond a multiple of that, and every claim is checked
again on the original. A copy whose gradients differ is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, proxy

import torch
from torch import Tensor, nn

from robrep_eval.attacks.fast_copy import folded_copy, plain_copy
from robrep_eval.attacks.likeness import Original, State, compiled, examine
from robrep_eval.attacks.problem import Model, wide
from robrep_eval.memory import keep_freed_memory
from zoo.ball import project, random_start, steepest
from zoo.classifier import Classifier
from zoo.nets.memory_format import memory_format
from zoo.threat import ThreatModel

GUARD = 4.0
"""The guard, in multiples of the largest change of a logit seen (two would do)."""
POINTS = 6
"""Images around which gradients are compared, at most."""

FOLDED = "a folded copy"
_COPIES = {FOLDED: folded_copy, "a copy": plain_copy}
_prepared: WeakKeyDictionary[Classifier, tuple[State, Model]] = WeakKeyDictionary()


def prepare(
    classifier: Classifier,
    *,
    exact: bool = False,
    around: tuple[Tensor, ThreatModel] | None = None,
) -> Model:
    """A model for proposing, made once per classifier and state of its weights.

    The guard is measured on fixed images, so that it does not depend on the examples.

    Args:
        classifier: The original; not changed.
        exact: The original itself, without any rounding of its own: for replaying
            the reference.
        around: Compare anew, in the balls around these images also.
    """
    if exact:
        return Model(classifier, torch.contiguous_format)
    known = _prepared.get(classifier)
    if around is None and known is not None:
        state, model = known
        if model.why or state == State(classifier):
            return model
    device = _device(classifier)
    if device.type == "cpu":
        keep_freed_memory()
    sample = _sample(classifier.shape).to(device)
    points = [around_images(sample[4::4], ThreatModel(norm="Linf", eps=0.05))]
    if around is not None:
        points.append(around_images(around[0][:POINTS].to(device), around[1]))
    model = _fastest(classifier, torch.cat(points))
    model.guard = GUARD * _spread(classifier, model, sample)
    _prepared[classifier] = State(classifier), model
    return model


def around_images(x: Tensor, threat: ThreatModel) -> Tensor:
    """The images (n, C, H, W), points in their balls and at the edge of these, (3n)."""
    generator = torch.Generator().manual_seed(0)
    inside = random_start(x, threat, generator)
    noise = torch.randn(x.shape, generator=generator).to(x)
    edge = project(x + threat.eps * steepest(noise, threat.norm), x, threat)
    return torch.cat([x, inside, edge])


def _fastest(classifier: Classifier, x: Tensor) -> Model:
    """The fastest that behaves like the classifier on these images."""
    # Weakly, as what is remembered of a classifier must not keep it alive.
    weak: Any = proxy(classifier)
    itself = Model(weak, torch.contiguous_format)
    if compiled(classifier):
        itself.why = "it is compiled"
        return itself
    try:
        original = examine(classifier, itself, x)
    except Exception as error:  # foreign modules fail in many ways
        itself.why = _said(error)
        return itself
    itself.why = original.unsafe
    if itself.why:
        return itself
    for kind, make in _COPIES.items():
        if kind == FOLDED and original.lost:
            continue
        model = _alike(classifier, kind, make, original)
        if isinstance(model, Model):
            return model
        itself.why = model
    return itself


def _alike(
    classifier: Classifier,
    kind: str,
    make: Callable[[nn.Module], nn.Module],
    original: Original,
) -> Model | str:
    """A copy that behaves like the original, or how it differs."""
    try:
        module = make(classifier)
    except Exception as error:  # copying and tracing fail in many ways
        return _said(error)
    why = ""
    for memory in dict.fromkeys((memory_format(module), torch.contiguous_format)):
        model = Model(module, memory, kind=kind)
        try:
            why = original.difference(model)
        except Exception as error:  # a view that the other layout does not allow
            why = _said(error)
        if not why:
            return model
    return why


def _said(error: Exception) -> str:
    """In one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _sample(shape: tuple[int, int, int]) -> Tensor:
    """Fixed images (32, C, H, W) of noise, from dark to light."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((32, *shape), generator=generator)
    return noise * torch.linspace(0, 1, 32).view(-1, 1, 1, 1)


def _device(module: nn.Module) -> torch.device:
    weights = next(module.parameters(), None)
    return torch.device("cpu") if weights is None else weights.device


def _spread(classifier: Classifier, model: Model, x: Tensor) -> float:
    """Largest change of a logit by batch composition and preparation."""
    with torch.no_grad():
        want = wide(classifier(x.clone()))
        alone = torch.cat([wide(classifier(row[None].clone())) for row in x[:4]])
    parts = [model.logits(x), model.logits(x, max(1, len(x) // 3))]
    with torch.enable_grad():  # some modules then compute in another way
        leaf = x.contiguous(memory_format=model.format).requires_grad_()
        parts.append(wide(model.module(leaf)).detach())
    changes = [float((part - want).abs().max()) for part in parts]
    changes.append(float((alone - want[:4]).abs().max()))
    return max(changes)
