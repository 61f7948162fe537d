"""The attack engine against pyautoattack: same classifier, images and threads, one run.

    python -m benchmarks.autoattack                # everything
    python -m benchmarks.autoattack --case robust --images 64

Cases: `nonrobust` (every example falls), `robust` (about half survive), `images` (the
same on 28x28 images), `cores` (the engine's two processes against pyautoattack's two
threads), `colour` and `colour-cores` (on 3x32x32 images), `quick`, `quick-images` and
`fast` (against `standard` of the same engine), `audit` (`fast` on all and `standard` on
a sample, against `standard` on all), `speculation` (Square on few images, several
squares in a pass against one), `waits` (how often a step of each attack would wait for
a GPU), `seeds` (robust accuracy over several seeds of both), `processes` (2 against 1),
`memory` (10,000 against 1,000 examples). Each runs in a process of its own. With one
thread times are CPU seconds, which other work on the machine disturbs little; with more
they are wall seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.autoattack import peers, scale
from benchmarks.autoattack.timing import stopwatch
from benchmarks.autoattack.versus import seeds, versus
from benchmarks.autoattack.waits import show
from benchmarks.classifiers import COLOUR, MEDIUM, SMALL, shifted_digits, trained
from robrep_eval.attacks.base import Context
from robrep_eval.attacks.battery import build
from robrep_eval.attacks.square import SquareAttack
from robrep_eval.run.chunk import BatterySettings
from robrep_eval.run.engine import run_battery
from zoo import datasets
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.threat import ThreatModel

COLOUR_EPS = 0.03
"""Of training and attack on 3x32x32 images."""


def cheaper(name: str, classifier: Classifier, data: Dataset, eps: float) -> None:
    """A battery against `standard`, both by the engine."""
    threat = ThreatModel(norm="Linf", eps=eps)
    spent: dict[str, float] = {}
    robust: dict[str, float] = {}
    for battery in (name, "standard"):
        with tempfile.TemporaryDirectory() as folder, stopwatch(spent, battery):
            found = run_battery(
                classifier,
                data,
                threat,
                build(battery),
                settings=BatterySettings(),
                folder=Path(folder),
            )
        verdicts = found.examples.verdict
        robust[battery] = 100 * verdicts.count("robust") / len(verdicts)  # type: ignore[arg-type]
    print(
        f"\n{name} against standard, {len(data)} images, {threat}: "
        f"{spent[name]:.1f} s against {spent['standard']:.1f} s, "
        f"{spent['standard'] / spent[name]:.1f}x cheaper; robust "
        f"{robust[name]:.2f}% against {robust['standard']:.2f}%"
    )


def speculation(classifier: Classifier, data: Dataset, eps: float) -> None:
    """Square on the first images that are correct, 8 and 38, either way."""
    threat = ThreatModel(norm="Linf", eps=eps)
    x, y = data.images(slice(None)), data.labels
    right = peers.holds(classifier, x, y).nonzero().flatten()
    for count in (8, 38):
        at = right[:count]
        spent: dict[str, float] = {}
        found = {}
        for name in ("one", "several"):
            attack = SquareAttack(name="square", speculation=name == "several")
            context = Context(seed=0, ids=at, batch_size=512)
            with stopwatch(spent, name):
                found[name] = attack.propose(classifier, x[at], y[at], threat, context)
        verdicts = [peers.holds(classifier, images, y[at]) for images in found.values()]
        print(
            f"\nSquare on {len(at)} images, {threat}: one square in a pass "
            f"{spent['one']:.1f} s, several {spent['several']:.1f} s; same verdict "
            f"{int((verdicts[0] == verdicts[1]).sum())} of {len(at)}"
        )


def _nonrobust(options: argparse.Namespace) -> None:
    classifier = trained(SMALL, datasets.load("digits", "train"), 0, 4)
    versus(classifier, _digits(options), options.eps, "non-robust")


def _robust(options: argparse.Namespace) -> None:
    classifier = _small()
    versus(classifier, _digits(options), options.eps, "robust")
    peers.namesakes(classifier, _digits(options).take(32), options.eps)


def _images(options: argparse.Namespace) -> None:
    data = shifted_digits(options.images)
    versus(_medium(), data, 0.6 * options.eps, "robust, 28x28 images")


def _quick_images(options: argparse.Namespace) -> None:
    cheaper("quick", _medium(), shifted_digits(options.images), 0.6 * options.eps)


def _fast(options: argparse.Namespace) -> None:
    cheaper("fast", _medium(), shifted_digits(options.images), 0.6 * options.eps)


def _audit(options: argparse.Namespace) -> None:
    name = f"fast,audit:{max(1, options.images // 8)}"
    cheaper(name, _medium(), shifted_digits(options.images), 0.6 * options.eps)


def _speculation(options: argparse.Namespace) -> None:
    speculation(_medium(), shifted_digits(options.images), 0.2 * options.eps)


def _waits(options: argparse.Namespace) -> None:
    threat = ThreatModel(norm="Linf", eps=0.36 * options.eps)
    show(_medium(), shifted_digits(options.images), threat)


def _colour(options: argparse.Namespace) -> None:
    versus(_coloured(), _enlarged("test", options), COLOUR_EPS, "3x32x32 images")


def _colour_cores(options: argparse.Namespace) -> None:
    scale.cores(_coloured(), _enlarged("test", options), COLOUR_EPS)


def _on_small(
    case: Callable[[Classifier, Dataset, float], None],
) -> Callable[[argparse.Namespace], None]:
    return lambda options: case(_small(), _digits(options), options.eps)


def _small() -> Classifier:
    """Robust, on 8x8 images."""
    return trained(SMALL, datasets.load("digits", "train"), 0.15, 15)


def _medium() -> Classifier:
    """Robust, on 28x28 images."""
    return trained(MEDIUM, shifted_digits(2000, seed=1), 0.12, 8)


def _coloured() -> Classifier:
    """Half robust, on 3x32x32 images."""
    return trained(COLOUR, datasets.load("digits@3x32x32", "train"), COLOUR_EPS, 5)


def _enlarged(split: str, options: argparse.Namespace) -> Dataset:
    return datasets.load("digits@3x32x32", split).take(options.images)


def _digits(options: argparse.Namespace) -> Dataset:
    return datasets.load("digits", "test").take(options.images)


CASES: dict[str, Callable[[argparse.Namespace], None]] = {
    "nonrobust": _nonrobust,
    "robust": _robust,
    "images": _images,
    "cores": _on_small(scale.cores),
    "colour": _colour,
    "colour-cores": _colour_cores,
    "quick": _on_small(partial(cheaper, "quick")),
    "quick-images": _quick_images,
    "fast": _fast,
    "audit": _audit,
    "speculation": _speculation,
    "waits": _waits,
    "seeds": _on_small(seeds),
    "processes": _on_small(scale.processes),
    "memory": lambda _: scale.memory(),
}


def main() -> None:
    """Runs the chosen cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--eps", type=float, default=0.2, help="of the 8x8 cases")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = options.case or list(CASES)
    if options.child:
        scale.memory_child(options.child)
    elif len(cases) == 1:
        print(f"torch {torch.__version__}, {options.threads} thread(s)")
        CASES[cases[0]](options)
    else:
        for case in cases:
            arguments = [
                f"--{name}={getattr(options, name)}"
                for name in ("images", "eps", "threads")
            ]
            command = [sys.executable, "-m", "benchmarks.autoattack", "--case", case]
            subprocess.run([*command, *arguments], check=True)


if __name__ == "__main__":
    main()
