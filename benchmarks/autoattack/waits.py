"""How often a step of an attack waits for its device, and how many operations it takes.

Counted by what is dispatched, on any device: reading a number, finding the places where
something holds, and picking by a mask each need their answer before Python can go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from robrep_eval.attacks.base import Attack, Context
from robrep_eval.attacks.battery import build
from robrep_eval.attacks.pool import Pool
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.threat import ThreatModel

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}
BY_MASK = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Counting(TorchDispatchMode):
    """Counts operations, and those that wait, while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        self.operations += 1
        if name in WAITING or (name in BY_MASK and _masked(args[1])):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


class Lists(TorchFunctionMode):
    """Counts tensors that are read as lists, which are not dispatched on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.waits += func is Tensor.tolist
        return func(*args, **(kwargs or {}))


def _masked(indices: Any) -> bool:
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in indices)


def per_step(
    attack: Attack,
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
) -> tuple[float, float]:
    """Waits and operations of an attack, each divided by the steps of its batches.

    Args:
        attack: By robrep's engine.
        classifier: What is attacked.
        x: (n, C, H, W), float32 in [0, 1].
        y: Classes (n,), int64.
        threat: Where adversarials may lie.
    """
    steps, run = 0, Pool.run

    def counted(self: Pool, on_step: Any = lambda _: None) -> None:
        def one(pool: Pool) -> None:
            nonlocal steps
            steps += 1
            on_step(pool)

        run(self, one)

    Pool.run = counted  # type: ignore[method-assign]
    try:
        with Counting() as counting, Lists() as lists:
            context = Context(seed=0, ids=torch.arange(len(x)), batch_size=512)
            attack.propose(classifier, x, y, threat, context)
    finally:
        Pool.run = run  # type: ignore[method-assign]
    waits = counting.waits.total() + lists.waits
    return waits / steps, counting.operations / steps


def show(classifier: Classifier, data: Dataset, threat: ThreatModel) -> None:
    """Prints a table for `standard`, shortened: what a step costs does not change."""
    x, y = data.images(slice(None)), data.labels
    with torch.no_grad():
        right = torch.eq(classifier(x).argmax(dim=1), y).nonzero().flatten()
    print("| attack | images | waits a step | operations a step |\n|---|--:|--:|--:|")
    for attack in build("standard").attacks:
        few: Any = attack
        few = replace(few, steps=600 if few.name == "square" else 60)
        for count in (8, 32):
            rows = right[:count]
            waits, operations = per_step(few, classifier, x[rows], y[rows], threat)
            print(
                f"| {few.name} | {len(rows)} | {waits:.1f} | {operations:.0f} |",
                flush=True,
            )
