"""Several processes, and many examples: the engine as its users start it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.autoattack import peers
from benchmarks.classifiers import TINY, shifted_digits, trained
from zoo.classifier import Classifier
from zoo.classifier_file import save_classifier
from zoo.datasets.base import Dataset
from zoo.records import Result
from zoo.result_file import read_result
from zoo.threat import ThreatModel


def cores(classifier: Classifier, data: Dataset, eps: float) -> None:
    """Two cores: the engine's two processes against pyautoattack's two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    threat = ThreatModel(norm="Linf", eps=eps)
    x, y = data.images(slice(None)), data.labels
    began = time.perf_counter()
    theirs = peers.official(classifier, x, y, threat, seed=0)
    reference = time.perf_counter() - began
    torch.set_num_threads(threads)
    found = _sharded(classifier, data, eps, 2, "standard", chunk=len(data) // 2)
    alive = torch.tensor([v == "robust" for v in found.examples.verdict])
    total = found.seconds["total"]
    print(
        f"\ntwo cores, {len(x)} images, {threat}: engine in two processes {total:.1f} s"
        f" (every adversarial re-checked), pyautoattack with two threads "
        f"{reference:.1f} s: {reference / total:.1f}x; "
        f"same verdict {int((theirs == alive).sum())}/{len(x)}"
    )


def processes(classifier: Classifier, data: Dataset, eps: float) -> None:
    """`torchrun` with two processes against one process, one thread each."""
    runs: dict[int, list[Result]] = {1: [], 2: []}
    for count in (1, 2, 1, 2):
        runs[count].append(
            _sharded(classifier, data, eps, count, "apgd-ce,apgd-t", chunk=16)
        )
    best = {n: min(r.seconds["total"] for r in found) for n, found in runs.items()}
    verdicts = [r.examples.verdict for found in runs.values() for r in found]
    equal = all(v == verdicts[0] for v in verdicts)
    print(
        f"\n2 processes against 1: {best[1]:.1f} s against {best[2]:.1f} s of wall "
        f"time, {best[1] / best[2]:.2f}x (start of Python and torchrun left out); "
        f"verdicts {'equal' if equal else 'DIFFER'}; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def _sharded(
    classifier: Classifier,
    data: Dataset,
    eps: float,
    count: int,
    attacks: str,
    chunk: int,
) -> Result:
    """The result of one run by `torchrun` in `count` processes of one thread."""
    with tempfile.TemporaryDirectory() as name:
        model, output = Path(name) / "model.safetensors", Path(name) / "run"
        save_classifier(classifier, model, reference="bench")
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone",
             "--nproc-per-node", str(count), "-m", "robrep_eval", "-q",
             "--model", str(model), "--dataset", data.name, "--eps", str(eps),
             "--limit", str(len(data)), "--chunk-size", str(chunk),
             "--attacks", attacks, "--health", "none", "--output", str(output)],
            check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return read_result(output)


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


def memory_child(count: int) -> None:
    """Evaluates `count` examples, most of which fall; prints the peak in MiB."""
    from robrep_eval.run.evaluation import evaluate

    data = shifted_digits(count)
    classifier = trained(TINY, data.take(1000), 0, 5)
    result = evaluate(classifier, dataset=data, eps=0.3, attacks="apgd-ce")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([peak, result.evidence.count]))
