"""Engine and pyautoattack on the standard battery, attack by attack."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from benchmarks.autoattack import peers
from benchmarks.autoattack.timing import bare_cost, passes_timed, stopwatch
from robrep_eval.attacks.autoattack import members
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.prepared import prepare
from robrep_eval.run.chunk import BatterySettings
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.threat import ThreatModel

BATCH = BatterySettings().batch_size
MEMBERS = members("standard", "Linf", "per-example")


@dataclass
class Side:
    """What one of the two came to."""

    alive: Tensor
    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    """Passes by attack, as text."""
    inside: float = 0.0
    """Seconds inside the passes."""
    needed: float = 0.0
    """Seconds of as many rows in full batches, timed apart."""

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def versus(classifier: Classifier, data: Dataset, eps: float, title: str) -> None:
    """Prints a table of both.

    pyautoattack runs first: the engine has the process keep freed memory, which
    makes pyautoattack faster than its users find it.
    """
    x, y = data.images(slice(None)), data.labels
    threat = ThreatModel(norm="Linf", eps=eps)
    right = peers.holds(classifier, x, y)
    print(f"\n{title}: {len(x)} images, {int(right.sum())} correct, {threat}")
    theirs = _reference(classifier, x, y, threat, right)
    ours = _engine(classifier, x, y, threat, right)
    print("attack      engine s  reference s  ratio   rows fwd/bwd (engine)   rows fwd")
    for name, seconds in ours.seconds.items():
        spent = theirs.seconds.get(name, 0.0)
        print(
            f"{name:10} {seconds:9.2f} {spent:12.2f} {spent / seconds:6.1f}x "
            f"{ours.rows[name]:>23} {theirs.rows.get(name, ''):>10}"
        )
    same = int((ours.alive == theirs.alive).sum())
    print(
        f"all        {ours.total:9.2f} {theirs.total:12.2f} "
        f"{theirs.total / ours.total:6.1f}x\n"
        f"robust: engine {int(ours.alive.sum())}, reference "
        f"{int(theirs.alive.sum())} of {len(x)}; same verdict {same}/{len(x)} "
        "(different random draws)\n"
        f"overhead: {ours.total / ours.inside - 1:.0%} of the time inside the passes, "
        f"{ours.total / ours.needed - 1:.0%} of as many rows in full batches",
        flush=True,
    )


def _reference(
    classifier: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, right: Tensor
) -> Side:
    side = Side(right.clone())
    for attack in MEMBERS:
        at = side.alive.nonzero().flatten()
        if not len(at):
            break
        with stopwatch(side.seconds, attack.name):
            images, count = peers.member(classifier, x[at], y[at], threat, attack.name)
        side.rows[attack.name] = str(count)
        side.alive[at] = peers.holds(classifier, images, y[at])
    return side


def _engine(
    classifier: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, right: Tensor
) -> Side:
    side, inside = Side(right.clone()), dict[str, float]()
    model = prepare(classifier)
    for attack in MEMBERS:
        at = side.alive.nonzero().flatten()
        if not len(at):
            break
        model.forward_rows = model.backward_rows = 0
        context = Context(seed=0, ids=at, batch_size=BATCH)
        with passes_timed(model, inside), stopwatch(side.seconds, attack.name):
            images = attack.propose(classifier, x[at], y[at], threat, context)
        forwards, gradients = model.forward_rows, model.backward_rows
        side.rows[attack.name] = f"{forwards}/{gradients}"
        forward, both = bare_cost(model, x, BATCH)
        side.needed += gradients * both + (forwards - gradients) * forward
        side.alive[at] = peers.holds(classifier, images, y[at])
    side.inside = inside["passes"]
    return side


def seeds(classifier: Classifier, data: Dataset, eps: float, count: int = 3) -> None:
    """Robust accuracy of both, each over several seeds."""
    x, y = data.images(slice(None)), data.labels
    threat = ThreatModel(norm="Linf", eps=eps)
    found: dict[str, list[int]] = {"engine": [], "pyautoattack": []}
    for seed in range(count):
        kept = peers.official(classifier, x, y, threat, seed)
        found["pyautoattack"].append(int(kept.sum()))
        alive = peers.holds(classifier, x, y)
        for attack in MEMBERS:
            at = alive.nonzero().flatten()
            context = Context(seed=seed, ids=at, batch_size=BATCH)
            images = attack.propose(classifier, x[at], y[at], threat, context)
            alive[at] = peers.holds(classifier, images, y[at])
        found["engine"].append(int(alive.sum()))
    print(f"\nrobust of {len(x)} over {count} seeds, {threat}: {found}")
