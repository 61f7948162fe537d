"""What robrep says of planted defences and of honest models, as a table.

    OMP_NUM_THREADS=1 python -m benchmarks.planted                     # both, all
    python -m benchmarks.planted --only defences --match decoy --images 40

Each is evaluated as a user's module is, with a battery and the default health checks,
on the first digits of the test split. A defence that the evaluation refuses is checked
all the same. Seconds are those of the processor; what the default measurements (checks,
curve and bound) took is given beside what the battery took.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch

from benchmarks.planted.defences import HELD_OUT, MILD, TUNED, behind
from benchmarks.planted.models import honest, plain
from robrep_eval import evaluate
from robrep_eval.measures.bound import EstimatedBound
from robrep_eval.measures.health import Subject, check_health
from robrep_eval.measures.health.measurement import HealthChecks, RadiusCurve
from zoo import datasets
from zoo.classifier import Classifier
from zoo.errors import UserError
from zoo.judgement import Judgement, judge
from zoo.measurements import HealthReport, Status
from zoo.threat import ThreatModel

EPS = 0.15
CHOICES = ("tuned", "held-out", "mild", "defences", "honest")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    robust: float | None
    """None: the evaluation was refused."""
    report: HealthReport
    seconds: float
    """All of them."""
    attacks: float = 0.0
    """Until the first measurement began; 0 where the evaluation was refused."""

    @property
    def judgement(self) -> Judgement:
        return judge(self.report)

    @property
    def named(self) -> str:
        """The checks that did not pass, failures first, in their order."""
        bad = [f for f in self.report.flags if f.status is not Status.PASS]
        bad.sort(key=lambda f: f.status is not Status.FAIL)
        return ", ".join(f"`{f.check}`" for f in bad)


def row(classifier: Classifier, images: int, battery: str) -> Row:
    """Evaluates and checks one classifier."""
    data = datasets.load("digits", "test").take(images)
    began = time.process_time()
    measuring: list[float] = []

    def stage(name: str) -> None:
        if name.startswith("measuring"):
            measuring.append(time.process_time() - began)

    robust, report = None, None
    try:
        result = evaluate(
            classifier,
            data,
            eps=EPS,
            attacks=battery,
            measure=(HealthChecks(), RadiusCurve(), EstimatedBound()),
            on_stage=stage,
        )
        robust, report = 100 * result.robust.value, result.measurements.health
    except UserError:
        report = check_health(
            Subject(
                classifier=classifier,
                x=data.images(slice(None)),
                y=data.labels,
                ids=data.positions.tolist(),
                threat=ThreatModel(norm="Linf", eps=EPS),
            )
        )
    assert report is not None
    seconds = time.process_time() - began
    return Row(robust, report, seconds, measuring[0] if measuring else 0.0)


def _line(name: str, found: Row) -> str:
    robust = "refused" if found.robust is None else f"{found.robust:.0f}"
    return (
        f"| {name} | {robust} | {found.judgement} | {found.named} "
        f"| {found.attacks:.1f} | {found.seconds - found.attacks:.1f} |"
    )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--battery", default="fast")
    parser.add_argument("--only", choices=CHOICES)
    parser.add_argument("--match", nargs="*", default=[""], help="parts of names")
    given = parser.parse_args()
    torch.set_num_threads(1)
    head = (
        "| {} | reported, % | evaluation | named by | battery, s | measured, s |\n"
        "|---|--:|---|---|--:|--:|"
    )
    if given.only != "honest":
        inner = plain()
        print(head.format("defence"))
        print(_line("none", row(inner, given.images, given.battery)), flush=True)
        parts = {"tuned": TUNED, "held-out": HELD_OUT, "mild": MILD}
        wanted = parts.get(given.only, TUNED + HELD_OUT + MILD)
        for planted in wanted:
            if any(part in planted.name for part in given.match):
                found = row(behind(planted, inner), given.images, given.battery)
                print(_line(planted.name, found), flush=True)
    if given.only in (None, "honest"):
        print("\n" + head.format("honest model"))
        for name, classifier in honest():
            if any(part in name for part in given.match):
                found = row(classifier, given.images, given.battery)
                print(_line(name, found), flush=True)


if __name__ == "__main__":
    main()
