"""The attack engine against pyautoattack: same classifier, images and threads, one run.

    python -m benchmarks.autoattack                # everything
    python -m benchmarks.autoattack --case robust --images 64

Cases: `nonrobust` (every example falls), `robust` (about half survive), `quick`
(against `standard` of the same engine), `processes` (2 against 1), `memory` (10,000
against 1,000 examples). Times are CPU seconds of one thread unless said otherwise, so
that other work on the machine disturbs them little; what is compared is measured in
the same process, alternating.
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

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robrep_eval.attacks.base import Context
from robrep_eval.attacks.own import members
from robrep_eval.attacks.pgd import ascend, frozen
from robrep_eval.attacks.problem import Model, physical_batch, prepare
from robrep_eval.battery import build
from robrep_eval.chunk import Settings
from robrep_eval.engine import run_battery
from robrep_eval.randomness import seeded
from zoo import datasets
from zoo.classifier import Classifier
from zoo.classifier_file import load_classifier, save_classifier
from zoo.datasets.base import Dataset, from_array
from zoo.encoder import Encoder, EncoderSpec
from zoo.threat import ThreatModel

CASES = ("nonrobust", "robust", "quick", "processes", "memory")
SPEC = EncoderSpec(
    arch="resnet_s8",
    options={"widths": [32, 64, 128], "blocks": [1, 1, 1]},
    shape=(1, 8, 8),
)
TINY = EncoderSpec(
    arch="resnet_s28",
    options={"widths": [8, 16], "blocks": [1, 1], "stem_stride": 2},
    shape=(1, 28, 28),
)


def trained(eps: float, epochs: int) -> Classifier:
    """A small ResNet on digits, adversarially trained if eps is positive."""
    torch.manual_seed(0)
    data = datasets.load("digits", "train")
    x, y = data.images(slice(None)), data.labels
    encoder, head = Encoder(SPEC), nn.Linear(SPEC.options["widths"][-1], 10)
    network = nn.Sequential(encoder, head)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(128):
            images, labels = x[rows], y[rows]
            if eps:
                with frozen(network):
                    images = ascend(
                        _objective(network, labels),
                        images,
                        ThreatModel(norm="Linf", eps=eps),
                        steps=5,
                        step_size=eps / 3,
                        generator=generator,
                    )
            network.train()
            optimiser.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimiser.step()
    return Classifier(encoder, head, classes=10, shape=SPEC.shape)


def _objective(network: nn.Module, labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda v: F.cross_entropy(network(v), labels, reduction="none")


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
    """Adds the CPU seconds of the block to `into[name]`."""
    began = time.process_time()
    yield
    into[name] = into.get(name, 0.0) + time.process_time() - began


def bare_cost(model: Model, x: Tensor, repeats: int = 10) -> tuple[float, float]:
    """CPU seconds per row of a forward pass, and of one with backward."""
    batch = x[: physical_batch(x, len(x))]
    forward: dict[str, float] = {}
    for _ in range(repeats):
        with stopwatch(forward, "f"):
            model.logits(batch)
        with stopwatch(forward, "b"):
            model.gradient(batch, lambda logits: logits.sum(dim=1))
    return tuple(forward[k] / repeats / len(batch) for k in "fb")  # type: ignore[return-value]


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
    needed = 0.0
    for attack in members("standard", "Linf", "per-example"):
        spent: dict[str, float] = {}
        rows = alive["engine"].nonzero().flatten()
        if not len(rows):
            print(f"{attack.name:10}  nobody is left")
            break
        cost = bare_cost(model, x[rows])
        before = model.forward_rows, model.backward_rows
        with stopwatch(spent, "engine"):
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
        f"overhead over the bare passes used: {total['engine'] / needed - 1:.0%}"
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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_classifier(classifier, folder / "model.safetensors", reference="bench")
        arguments = [
            "-m",
            "robrep_eval",
            "--model",
            str(folder / "model.safetensors"),
            "--dataset",
            "digits",
            "--eps",
            str(eps),
            "--limit",
            str(len(data)),
            "--chunk-size",
            "16",
            "--attacks",
            "apgd-ce,apgd-t",
            "-q",
        ]
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        wall: dict[int, list[tuple[float, float]]] = {}
        verdicts: dict[int, list[str]] = {}
        for count in (1, 2, 1, 2):
            output = folder / f"run{count}"
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, *torchrun, str(count), *arguments, "--overwrite",
                 "--output", str(output)],
                check=True, env=env, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            result = json.loads((output / "result.json").read_text())
            start = time.perf_counter() - began - result["seconds"]["total"]
            wall.setdefault(count, []).append((result["seconds"]["total"], start))
            verdicts[count] = result["examples"]["verdict"]
    best = {count: min(t for t, _ in runs) for count, runs in wall.items()}
    print(
        f"\n2 processes against 1: {best[1]:.1f} s against {best[2]:.1f} s of wall "
        f"time, {best[1] / best[2]:.2f}x (start of Python and torchrun left out); "
        f"verdicts {'equal' if verdicts[1] == verdicts[2] else 'DIFFER'}; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def shifted_digits(count: int) -> Dataset:
    """Digits enlarged to 28x28 and shifted at random, 8 bits a pixel."""
    data = datasets.load("digits", "train")
    rng = np.random.default_rng(0)
    rows = rng.integers(len(data), size=count)
    small = data.images(torch.from_numpy(rows)).numpy()[:, 0]
    large = np.zeros((count, 1, 28, 28), np.uint8)
    for at, image in enumerate(np.kron(small, np.ones((1, 3, 3))) * 255):
        top, left = rng.integers(5, size=2)
        large[at, 0, top : top + 24, left : left + 24] = image
    labels = data.labels.numpy()[rows]
    names = [str(digit) for digit in range(10)]
    return from_array(large, labels, name="shifted", split="test", classes=names)


def memory_child(count: int) -> None:
    """Evaluates `count` examples that all fall; prints the peak memory in MiB."""
    from robrep_eval.evaluation import evaluate

    data = shifted_digits(count)
    torch.manual_seed(0)
    encoder = Encoder(TINY)
    head = nn.Linear(encoder.dim, 10)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for step in range(80):
        part = slice(step * 64 % 896, step * 64 % 896 + 64)
        loss = F.cross_entropy(head(encoder(data.images(part))), data.labels[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    classifier = Classifier(encoder, head, classes=10, shape=(1, 28, 28))
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


def main() -> None:
    """Runs the chosen cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--eps", type=float, default=0.2, help="of the robust cases")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, help="a robust classifier file instead")
    parser.add_argument("--dataset", default="digits", help="of that classifier")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        memory_child(options.child)
        return
    cases = options.case or CASES
    print(f"torch {torch.__version__}, {options.threads} thread(s)")
    if "nonrobust" in cases:
        digits = datasets.load("digits", "test").take(options.images)
        versus(trained(0, 4), digits, options.eps, "non-robust")
    if {"robust", "quick", "processes"} & set(cases):
        robust = load_classifier(options.model) if options.model else trained(0.15, 15)
        data = datasets.load(options.dataset, "test").take(options.images)
        if "robust" in cases:
            versus(robust, data, options.eps, "robust")
            others(robust, data.take(32), options.eps)
        if "quick" in cases:
            quick(robust, data, options.eps)
        if "processes" in cases:
            processes(robust, data, options.eps)
    if "memory" in cases:
        memory()


if __name__ == "__main__":
    main()
