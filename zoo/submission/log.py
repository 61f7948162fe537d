"""AutoAttack's log and table of verdicts, told from a result.

The lines are those that AutoAttack prints when it is verbose, which reviewers know.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.ball import lengths
from zoo.records import AttackRun, Outcome, Result


def log_lines(result: Result, x: Tensor, x_adv: Tensor) -> list[str]:
    """The log of a run of AutoAttack.

    Args:
        result: Of a battery whose attacks ran one after the other.
        x: Clean images (N, C, H, W).
        x_adv: The same with the adversarials in their places.
    """
    runs = [run for run in result.attacks if run.sequence]
    names = ", ".join(run.name for run in runs)
    lines = [
        f"using {result.battery} version including {names}.",
        f"initial accuracy: {result.clean.value:.2%}",
    ]
    spent = 0.0
    for run in runs:
        spent += run.seconds
        attempts = list(_chunks(result, run))
        if not attempts:
            break  # nobody is left: AutoAttack stops as well
        lines += [
            f"{run.name} - {at}/{len(attempts)} - {fooled} out of {tried} "
            "successfully perturbed"
            for at, (fooled, tried) in enumerate(attempts, start=1)
        ]
        lines.append(
            f"robust accuracy after {run.name.upper()}: {run.robust.value:.2%} "
            f"(total time {spent:.1f} s)"
        )
    size = lengths(x_adv - x, result.threat.norm).max()
    broken = int(torch.isnan(x_adv).sum())
    span = f"max: {x_adv.max():.5f}, min: {x_adv.min():.5f}"
    what = f"max {result.threat.norm} perturbation"
    lines.append(f"{what}: {size:.5f}, nan in tensor: {broken}, {span}")
    lines.append(f"robust accuracy: {result.robust.value:.2%}")
    return lines


def _chunks(result: Result, run: AttackRun) -> Iterator[tuple[int, int]]:
    """Fooled and attempted in each chunk in which anybody was left."""
    outcomes = result.examples.outcomes[run.name]
    for start in range(0, len(outcomes), result.chunk_size):
        part = outcomes[start : start + result.chunk_size]
        tried = sum(outcome is not Outcome.SKIPPED for outcome in part)
        if tried:
            yield part.count(Outcome.FOOLED), tried


def verdict_table(result: Result) -> str:
    """CSV: one line per image, with the outcome of each attack."""
    examples = result.examples
    names = [run.name for run in result.attacks]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "clean_prediction", "verdict", *names])
    for row in range(len(examples.index)):
        writer.writerow(
            [
                examples.index[row],
                examples.label[row],
                examples.clean_prediction[row],
                examples.verdict[row].value,
                *(examples.outcomes[name][row].value for name in names),
            ]
        )
    return text.getvalue()
