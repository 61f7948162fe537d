"""The attack engine against pyautoattack: same classifier, images and threads, one run.

    python -m benchmarks.autoattack                # everything
    python -m benchmarks.autoattack --case robust --images 64

Cases: `nonrobust` (every example falls), `robust` (about half survive), `images` (the
same on 28x28 images), `cores` (the engine's two processes against pyautoattack's two
threads), `quick` (against `standard` of the same engine), `seeds` (robust accuracy over
several seeds of both), `processes` (2 against 1), `memory` (10,000 against 1,000
examples). With one thread times are CPU seconds, which other work on the machine
disturbs little; with more they are wall seconds. What is compared is measured in the
same run, alternating.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.classifiers import MEDIUM, SMALL, TINY, shifted_digits, trained
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.own import members
from robrep_eval.attacks.problem import Model, physical_batch, prepare
from robrep_eval.battery import build
from robrep_eval.chunk import Settings
from robrep_eval.engine import run_battery
from robrep_eval.randomness import seeded
from zoo import datasets
from zoo.classifier import Classifier
from zoo.classifier_file import save_classifier
from zoo.datasets.base import Dataset
from zoo.threat import ThreatModel

CASES = (
    "nonrobust", "robust", "images", "cores", "quick", "seeds", "processes", "memory",
)  # fmt: skip


class Counting(nn.Module):
    """Counts the rows that pass forward through a classifier."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.inner(x)  # type: ignore[no-any-return]


@contextmanager
def stopwatch(into: dict[str, float], name: str) -> Iterator[None]:
    """Adds the seconds of the block to `into[name]`: CPU's of one thread, else wall."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    began = clock()
    yield
    into[name] = into.get(name, 0.0) + clock() - began


def bare_cost(model: Model, x: Tensor, repeats: int = 10) -> tuple[float, float]:
    """Seconds per row of a forward pass, and of one with backward."""
    batch = x[: physical_batch(x, len(x))]
    forward: dict[str, float] = {}
    for _ in range(repeats):
        with stopwatch(forward, "f"):
            model.logits(batch)
        with stopwatch(forward, "b"):
            model.gradient(batch, lambda logits: logits.sum(dim=1))
    return tuple(forward[k] / repeats / len(batch) for k in "fb")  # type: ignore[return-value]


@contextmanager
def passes_timed(model: Model, into: dict[str, float]) -> Iterator[None]:
    """Adds up what the passes of `model` take, with the losses they differentiate."""

    def timed(name: str) -> Callable[..., Any]:
        bare = getattr(model, name)

        def call(*arguments: Any) -> Any:
            with stopwatch(into, "passes"):
                return bare(*arguments)

        return call

    names = ("logits", "gradient", "jacobian")
    for name in names:
        setattr(model, name, timed(name))
    yield
    for name in names:
        delattr(model, name)


def reference(
    classifier: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, member: str
) -> tuple[Tensor, int]:
    """One member of pyautoattack's standard version: images, and forward rows."""
    from pyautoattack import AutoAttack

    counting = Counting(classifier)
    runner = AutoAttack(counting, norm=threat.norm, eps=threat.eps, seed=0)
    runner.attacks_to_run = [member]
    with seeded(0):
        x_adv, _ = runner.run_standard_evaluation(x, y, batch_size=128)
    return x_adv, counting.rows


def versus(classifier: Classifier, data: Dataset, eps: float, title: str) -> None:
    """Engine and pyautoattack on the standard battery, attack by attack."""
    x, y, threat = (
        data.images(slice(None)),
        data.labels,
        ThreatModel(norm="Linf", eps=eps),
    )
    with torch.no_grad():
        right = classifier(x).argmax(dim=1) == y
    alive = {"engine": right.clone(), "reference": right.clone()}
    model = prepare(classifier)
    total: dict[str, float] = {}
    print(f"\n{title}: {len(x)} images, {int(right.sum())} correct, {threat}")
    print("attack      engine s  reference s  ratio   rows fwd/bwd (engine)   rows fwd")
    needed, inside = 0.0, dict[str, float]()
    for attack in members("standard", "Linf", "per-example"):
        spent: dict[str, float] = {}
        rows = alive["engine"].nonzero().flatten()
        if not len(rows):
            print(f"{attack.name:10}  nobody is left")
            break
        cost = bare_cost(model, x[rows])
        before = model.forward_rows, model.backward_rows
        with passes_timed(model, inside), stopwatch(spent, "engine"):
            context = Context(seed=0, ids=rows, batch_size=128)
            proposals = attack.propose(classifier, x[rows], y[rows], threat, context)
        used = model.forward_rows - before[0], model.backward_rows - before[1]
        again = bare_cost(model, x[rows])
        forward, both = ((a + b) / 2 for a, b in zip(cost, again, strict=True))
        needed += used[1] * both + (used[0] - used[1]) * forward
        alive["engine"][rows] = _holds(classifier, proposals, y[rows])
        rows = alive["reference"].nonzero().flatten()
        with stopwatch(spent, "reference"):
            theirs, count = reference(classifier, x[rows], y[rows], threat, attack.name)
        alive["reference"][rows] = _holds(classifier, theirs, y[rows])
        for key, value in spent.items():
            total[key] = total.get(key, 0.0) + value
        print(
            f"{attack.name:10} {spent['engine']:9.1f} {spent['reference']:12.1f} "
            f"{spent['reference'] / spent['engine']:6.1f}x {used[0]:11}/{used[1]:<11} "
            f"{count:10}",
            flush=True,
        )
    same = int((alive["engine"] == alive["reference"]).sum())
    print(
        f"all        {total['engine']:9.1f} {total['reference']:12.1f} "
        f"{total['reference'] / total['engine']:6.1f}x\n"
        f"robust: engine {int(alive['engine'].sum())}, reference "
        f"{int(alive['reference'].sum())} of {len(x)}; same verdict {same}/{len(x)} "
        "(different random draws)\n"
        f"overhead over the passes: {total['engine'] / inside['passes'] - 1:.0%} of "
        f"the time inside them, {total['engine'] / needed - 1:.0%} of as many rows in "
        "full batches timed apart"
    )


def _holds(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.eq(classifier(x).argmax(dim=1), y)


def quick(classifier: Classifier, data: Dataset, eps: float) -> None:
    """`quick` against `standard`, both by the engine."""
    threat = ThreatModel(norm="Linf", eps=eps)
    spent: dict[str, float] = {}
    robust: dict[str, float] = {}
    for battery in ("quick", "standard"):
        with tempfile.TemporaryDirectory() as folder, stopwatch(spent, battery):
            found = run_battery(
                classifier,
                data,
                threat,
                build(battery),
                settings=Settings(),
                folder=Path(folder),
            )
        verdicts = found.examples.verdict
        robust[battery] = 100 * verdicts.count("robust") / len(verdicts)  # type: ignore[arg-type]
    print(
        f"\nquick against standard, {len(data)} images, {threat}: "
        f"{spent['quick']:.1f} s against {spent['standard']:.1f} s, "
        f"{spent['standard'] / spent['quick']:.1f}x cheaper; robust "
        f"{robust['quick']:.2f}% against {robust['standard']:.2f}%"
    )


def processes(classifier: Classifier, data: Dataset, eps: float) -> None:
    """`torchrun` with two processes against one process, one thread each."""
    runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for count in (1, 2, 1, 2):
        runs[count].append(sharded(classifier, data, eps, count, "apgd-ce,apgd-t"))
    best = {n: min(r["seconds"]["total"] for r in found) for n, found in runs.items()}
    verdicts = [r["examples"]["verdict"] for found in runs.values() for r in found]
    equal = all(v == verdicts[0] for v in verdicts)
    print(
        f"\n2 processes against 1: {best[1]:.1f} s against {best[2]:.1f} s of wall "
        f"time, {best[1] / best[2]:.2f}x (start of Python and torchrun left out); "
        f"verdicts {'equal' if equal else 'DIFFER'}; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def sharded(
    classifier: Classifier, data: Dataset, eps: float, count: int, attacks: str
) -> dict[str, Any]:
    """The result of one run by `torchrun` in `count` processes of one thread."""
    with tempfile.TemporaryDirectory() as name:
        model, output = Path(name) / "model.safetensors", Path(name) / "run"
        save_classifier(classifier, model, reference="bench")
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone",
             "--nproc-per-node", str(count), "-m", "robrep_eval", "-q",
             "--model", str(model), "--dataset", "digits", "--eps", str(eps),
             "--limit", str(len(data)), "--chunk-size", "16", "--attacks", attacks,
             "--output", str(output)],
            check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return json.loads((output / "result.json").read_text())  # type: ignore[no-any-return]


def cores(classifier: Classifier, data: Dataset, eps: float) -> None:
    """Two cores: the engine's two processes against pyautoattack's two threads."""
    ours = sharded(classifier, data, eps, 2, "standard")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    threat, spent = ThreatModel(norm="Linf", eps=eps), dict[str, float]()
    x, y = data.images(slice(None)), data.labels
    with stopwatch(spent, "reference"):
        theirs = official(classifier, x, y, threat, seed=0)
    torch.set_num_threads(threads)
    verdicts = [v == "robust" for v in ours["examples"]["verdict"]]
    same = int((theirs == torch.tensor(verdicts)).sum())
    total = ours["seconds"]["total"]
    print(
        f"\ntwo cores, {len(x)} images, {threat}: engine in two processes {total:.1f} s"
        f" (health checks and bound included), pyautoattack with two threads "
        f"{spent['reference']:.1f} s: {spent['reference'] / total:.1f}x; "
        f"same verdict {same}/{len(x)}"
    )


def official(
    classifier: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, seed: int
) -> Tensor:
    """pyautoattack's standard version: bool (N,), which examples stay right."""
    from pyautoattack import AutoAttack

    runner = AutoAttack(classifier, norm=threat.norm, eps=threat.eps, seed=seed)
    with seeded(seed):
        images, _ = runner.run_standard_evaluation(x, y, batch_size=128)
    return _holds(classifier, images, y)


def seeds(classifier: Classifier, data: Dataset, eps: float, count: int = 5) -> None:
    """Robust accuracy of engine and pyautoattack, each over several seeds."""
    x, y = data.images(slice(None)), data.labels
    threat = ThreatModel(norm="Linf", eps=eps)
    found: dict[str, list[int]] = {"engine": [], "pyautoattack": []}
    for seed in range(count):
        alive = _holds(classifier, x, y)
        for attack in members("standard", "Linf", "per-example"):
            rows = alive.nonzero().flatten()
            context = Context(seed=seed, ids=rows, batch_size=128)
            images = attack.propose(classifier, x[rows], y[rows], threat, context)
            alive[rows] = _holds(classifier, images, y[rows])
        found["engine"].append(int(alive.sum()))
        kept = official(classifier, x, y, threat, seed)
        found["pyautoattack"].append(int(kept.sum()))
    print(f"\nrobust of {len(x)} over {count} seeds, {threat}: {found}")


def memory_child(count: int) -> None:
    """Evaluates `count` examples that all fall; prints the peak memory in MiB."""
    from robrep_eval.evaluation import evaluate

    data = shifted_digits(count)
    classifier = trained(TINY, data.take(1000), 0, 5)
    result = evaluate(classifier, dataset=data, eps=0.3, attacks="apgd-ce")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([peak, result.evidence.count]))


def memory() -> None:
    """Peak memory with 10,000 and with 1,000 examples, each in its own process."""
    peaks = []
    for count in (1000, 10_000):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.autoattack", "--child", str(count)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
    (small, k), (large, n) = peaks
    print(
        f"\npeak memory: {large:.0f} MiB with 10,000 examples ({n} adversarials kept), "
        f"{small:.0f} MiB with 1,000 ({k}): {large / small:.2f}x"
    )


def others(classifier: Classifier, data: Dataset, eps: float) -> None:
    """What ART and torchattacks call AutoAttack: other attacks; where they run."""
    x, y = data.images(slice(None)), data.labels
    for name, attack in (("ART", _art), ("torchattacks", _torchattacks)):
        spent: dict[str, float] = {}
        try:
            with stopwatch(spent, name):
                adversarial = attack(classifier, x, y, eps)
        except ImportError as error:
            print(f"{name}'s AutoAttack (a different attack): does not run: {error}")
            continue
        robust = int(_holds(classifier, adversarial, y).sum())
        print(
            f"{name}'s AutoAttack (a different attack): {spent[name]:.1f} s, "
            f"{robust} of {len(x)} robust"
        )


def _art(classifier: Classifier, x: Tensor, y: Tensor, eps: float) -> Tensor:
    from art.attacks.evasion import AutoAttack

    from robrep_eval.adapters import to_art

    attack = AutoAttack(to_art(classifier), eps=eps, eps_step=eps / 4, batch_size=128)
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def _torchattacks(classifier: Classifier, x: Tensor, y: Tensor, eps: float) -> Tensor:
    import torchattacks  # type: ignore[import-not-found]

    attack = torchattacks.AutoAttack(classifier, norm="Linf", eps=eps, n_classes=10)
    return attack(x, y)  # type: ignore[no-any-return]


def robust_case(classifier: Classifier, data: Dataset, eps: float) -> None:
    """Engine and pyautoattack where about half of the examples survive."""
    versus(classifier, data, eps, "robust")
    others(classifier, data.take(32), eps)


ROBUST: dict[str, Callable[[Classifier, Dataset, float], None]] = {
    "robust": robust_case,
    "cores": cores,
    "quick": quick,
    "seeds": seeds,
    "processes": processes,
}


def _training() -> Dataset:
    return datasets.load("digits", "train")


def main() -> None:
    """Runs the chosen cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--eps", type=float, default=0.2, help="of the robust cases")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        memory_child(options.child)
        return
    cases = options.case or CASES
    print(f"torch {torch.__version__}, {options.threads} thread(s)")
    digits = datasets.load("digits", "test").take(options.images)
    if "nonrobust" in cases:
        versus(trained(SMALL, _training(), 0, 4), digits, options.eps, "non-robust")
    if "images" in cases:
        training = shifted_digits(2000, seed=1)
        robust = trained(MEDIUM, training, 0.12, 8)
        data = shifted_digits(options.images)
        versus(robust, data, 0.6 * options.eps, "robust, 28x28 images")
    if set(ROBUST) & set(cases):
        robust = trained(SMALL, _training(), 0.15, 15)
        for name in cases:
            if name in ROBUST:
                ROBUST[name](robust, digits, options.eps)
    if "memory" in cases:
        memory()


if __name__ == "__main__":
    main()
