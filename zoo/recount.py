"""What in a result follows from its other fields, computed again. Imports no torch.

Verdicts from outcomes, figures from verdicts, averages from their own lists. Whether
predictions, labels and adversarials are what they are said to be, forward passes tell:
`zoo.verification`, and `zoo.remeasure` for the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from pydantic import BaseModel

from zoo import health_checks, two_phases
from zoo.affordable import fewest
from zoo.batteries import fault, misattacked
from zoo.errors import VerificationError
from zoo.measurements import (
    EPS_FACTORS,
    Corruptions,
    EpsCurve,
    Flag,
    HealthReport,
    LabelFree,
    Radii,
    SmoothingCertificate,
    Status,
)
from zoo.records import Outcome, Proportion, Result
from zoo.verdicts import (
    attack_robust,
    clean_accuracy,
    mean_per_class,
    robust_accuracy,
    verdicts,
)

EXACT = 1e-9
"""Relative difference by which the order of a sum may move it."""


def agree(what: str, stated: object, found: object) -> None:
    """Raises `VerificationError` unless both are equal."""
    if stated != found:
        raise VerificationError(f"{what}: stated {stated}, recomputed {found}")


def near(what: str, stated: float, found: float, slack: float = EXACT) -> None:
    """Raises `VerificationError` unless both are equal but for a relative `slack`."""
    if not math.isclose(stated, found, rel_tol=slack, abs_tol=slack):
        raise VerificationError(f"{what}: stated {stated:.6g}, recomputed {found:.6g}")


def enough(what: str, found: int, least: int, most: int) -> None:
    """Raises `VerificationError` unless as many images were looked at as the record
    pays for: few may be easy ones."""
    if not least <= found <= most:
        raise VerificationError(
            f"{what}: made on {found} images; by its own attacks the record pays for "
            f"{least}, and it has {most}"
        )


def holds(what: str, found: bool) -> None:
    """Raises `VerificationError` with that sentence unless true."""
    if not found:
        raise VerificationError(what)


def check_figures(result: Result) -> None:
    """Counts, figures and intervals, and that attacks are those of the battery.

    Raises:
        VerificationError: the first that does not follow.
    """
    examples, names = result.examples, [run.name for run in result.attacks]
    holds("an attack is listed twice", _distinct(names))
    holds(
        "the attacks listed are not those with outcomes",
        set(names) == examples.outcomes.keys(),
    )
    if reason := fault(result):
        raise VerificationError(reason)
    if name := misattacked(result):
        raise VerificationError(
            f"{name} was not tried on exactly the images that it should have been: in "
            "a sequence those that the attacks before it left, else all that are "
            "correct when clean"
        )
    if reason := two_phases.fault(result):
        raise VerificationError(reason)
    holds(
        "a stated verdict does not follow from the outcomes",
        verdicts(examples) == examples.verdict,
    )
    _check_counts(result)
    for path, figure in proportions(result):
        near(f"{path}.low", figure.low, Proportion.of(figure.k, figure.n).low)
        near(f"{path}.high", figure.high, Proportion.of(figure.k, figure.n).high)


def _check_counts(result: Result) -> None:
    examples, data = result.examples, result.dataset
    agree("clean accuracy", result.clean, clean_accuracy(examples))
    agree("robust accuracy", result.robust, robust_accuracy(examples))
    if result.per_class is not None:
        means = mean_per_class(examples)
        agree("number of classes", result.per_class.classes, means.classes)
        near("clean accuracy per class", result.per_class.clean, means.clean)
        near("robust accuracy per class", result.per_class.robust, means.robust)
    undecided = sum(v == "undecided" for v in examples.verdict)
    agree("undecided", result.undecided, undecided)
    agree("number of images", data.n, len(examples.index))
    fooled = sum(run.fooled for run in result.attacks)
    agree("size of the evidence", result.evidence.count, fooled)
    tolerance = result.threat.tolerance(data.shape)
    agree("tolerance", result.evidence.tolerance, tolerance)
    for at, run in enumerate(result.attacks):
        outcomes = examples.outcomes[run.name]
        robust = attack_robust(examples, result.attacks, at)
        agree(f"robust accuracy under {run.name}", run.robust, robust)
        attempted = len(outcomes) - outcomes.count(Outcome.SKIPPED)
        agree(f"attempted by {run.name}", run.attempted, attempted)
        for name in ("fooled", "refused", "undecided"):
            found = outcomes.count(Outcome(name))
            agree(f"{name} by {run.name}", getattr(run, name), found)


def proportions(record: BaseModel, path: str = "") -> Iterator[tuple[str, Proportion]]:
    """All accuracies in a record and in the records inside it, with their paths."""
    for name in type(record).model_fields:
        value = getattr(record, name)
        here = f"{path}.{name}" if path else name
        parts = value if isinstance(value, list) else [value]
        if not parts or not isinstance(parts[0], BaseModel):
            continue
        for part in parts:
            if isinstance(part, Proportion):
                yield here, part
            else:
                yield from proportions(part, here)


def check_measurements(result: Result, checked: Sequence[Sequence[int]]) -> None:
    """Those parts of the measurements that need no network.

    Args:
        result: Whose `examples` hold.
        checked: Rows of `examples` that the health checks may have used; older
            versions took the first ones even where images are sorted by class.

    Raises:
        VerificationError: the first part that does not follow.
    """
    found = result.measurements
    if found.health:
        check_health(result, found.health)
    if found.eps_curve:
        check_eps_curve(result, found.eps_curve, checked)
    if found.smoothing:
        check_smoothing(result, found.smoothing)
    if found.label_free:
        check_label_free(result, found.label_free)
    if found.corruptions:
        check_corruptions(found.corruptions)


_ABOVE = {
    **dict.fromkeys(
        (
            "deterministic",
            "batch_independent",
            "static_forward",
            "input_range",
            "differentiable",
            "gradient_agrees",
            "smooth_loss",
            "eps_monotone",
            "large_eps_breaks",
            "stronger_beats_weaker",
            "finds_planted",
            "worst_case",
            "breaks_control",
            "stateless",
        ),
        Status.FAIL,
    ),
    **dict.fromkeys(
        ("silent_success", "converged", "losses_agree", "precision"), Status.WARN
    ),
}
"""Health checks that pass unless their value exceeds the limit."""
_COMPARED = ("other_losses", "decision_probe", "surrogate")
"""Those that pass just then, too, and warn or fail by how many images stood."""


def status(flag: Flag) -> Status | None:
    """What a health check comes to by its value and limit; None: they do not say."""
    if flag.value is None or flag.limit is None:
        return None
    over = flag.value > flag.limit
    if flag.check in _ABOVE:
        return _ABOVE[flag.check] if over else Status.PASS
    if flag.check in _COMPARED and over and flag.status is Status.PASS:
        return Status.WARN
    if flag.check in _COMPARED and not over:
        return Status.PASS
    if flag.check == "clean_first":
        return Status.PASS if over else Status.WARN
    if flag.check == "gradient_nonzero":
        mild = Status.WARN if flag.value > 0 else Status.PASS
        return Status.FAIL if over else mild
    return None


def check_health(result: Result, report: HealthReport) -> None:
    """Each status follows from its numbers; examples are evaluated images."""
    curve = result.measurements.eps_curve
    most = curve.points[0].robust.n if curve and curve.points else result.dataset.n
    enough("health checks", report.n, min(most, fewest(result).health), most)
    if reason := health_checks.fault(report):
        raise VerificationError(reason)
    known = set(result.examples.index)
    for flag in report.flags:
        agree(f"status of {flag.check}", flag.status, status(flag) or flag.status)
        holds(
            f"{flag.check} names images that were not evaluated",
            known.issuperset(flag.examples),
        )


def check_eps_curve(
    result: Result, curve: EpsCurve, checked: Sequence[Sequence[int]]
) -> None:
    """Its radii, its value at 0, and that what rises is reported."""
    radii = [factor * result.threat.eps for factor in EPS_FACTORS]
    agree("radii of eps_curve", [point.eps for point in curve.points], radii)
    counts = [point.robust.k for point in curve.points]
    n = len(checked[0])
    agree("images of eps_curve", {point.robust.n for point in curve.points}, {n})
    enough("eps_curve", n, fewest(result).health, result.dataset.n)
    found = [_clean(result, rows) for rows in checked]
    holds(
        f"eps_curve at 0: stated {counts[0]}, recomputed {found[0][0]}",
        any(few <= counts[0] <= many for few, many in found),
    )
    rise = max(after - before for before, after in pairwise(counts))
    report = result.measurements.health
    flags = {flag.check: flag for flag in report.flags} if report else {}
    told = flags.get("eps_monotone")
    if told is not None and told.value is not None:
        agree("eps_monotone: largest rise of eps_curve", told.value, float(rise))
    elif rise > max(1, round(0.01 * n)):
        raise VerificationError(f"eps_curve rises by {rise} images, and no check says")


def _clean(result: Result, rows: Sequence[int]) -> tuple[int, int]:
    """How many of these are correct when clean, undecided ones left out or counted."""
    examples = result.examples
    found = [examples.clean_prediction[row] for row in rows]
    pairs = zip(found, (examples.label[row] for row in rows), strict=True)
    correct = sum(guess == label for guess, label in pairs)
    return correct, correct + sum(guess < 0 for guess in found)


def check_smoothing(result: Result, found: SmoothingCertificate) -> None:
    """Figures from the columns; no radius beyond what its samples could prove."""
    from scipy.stats import norm

    examples = result.examples
    label = dict(zip(examples.index, examples.label, strict=True))
    holds("smoothing: an image is listed twice", _distinct(found.index))
    holds("smoothing: an image was not evaluated", label.keys() >= set(found.index))
    holds("smoothing: no samples", found.n > 0 and 0 < found.alpha < 1)
    most = found.sigma * float(norm.ppf(found.alpha ** (1 / found.n)))
    radius, guess = np.array(found.radius), np.array(found.prediction)
    holds(
        "smoothing: a radius is larger than its samples can prove, or an abstention "
        "has one",
        bool(((radius > 0) == (guess >= 0)).all() and (radius <= most * 1.001).all()),
    )
    right = guess == np.array([label[i] for i in found.index])
    earned = np.where(right, radius, 0.0)
    agree("smoothing.abstained", found.abstained, int((guess < 0).sum()))
    total = Proportion.of(int(right.sum()), len(right))
    agree("smoothing.smoothed", found.smoothed, total)
    near("smoothing.average_radius", found.average_radius, float(earned.mean()))
    check_curve("smoothing.curve", found.curve, np.where(right, radius, -1.0))


def check_curve(what: str, curve: Radii, radius: np.typing.NDArray[np.float64]) -> None:
    """Shares certified beyond each radius of an even grid from 0."""
    grid = np.linspace(0, curve.radius[-1] if curve.radius else 0, len(curve.radius))
    holds(f"{what}: the radii are no even grid", np.allclose(curve.radius, grid))
    counts = [Proportion.of(int((radius > r).sum()), len(radius)) for r in curve.radius]
    agree(what, curve.certified, counts)


def check_label_free(result: Result, found: LabelFree) -> None:
    """Shares are shares, and the nearest five hold the nearest one."""
    shares = (
        found.universal_quantile,
        found.breakaway_risk,
        found.nearest_top1,
        found.nearest_top5,
        found.overlap_risk,
        found.impersonation or 0.0,
    )
    holds("label_free: a share is not in [0, 1]", all(0 <= s <= 1 for s in shares))
    holds("label_free: top 1 above top 5", found.nearest_top1 <= found.nearest_top5)
    holds("label_free: more images than there are", found.n <= result.dataset.n)


def check_corruptions(found: Corruptions) -> None:
    """The mean of the cells, of which each comes once."""
    cells = [(cell.corruption, cell.severity) for cell in found.cells]
    holds("corruptions: a cell is listed twice", _distinct(cells))
    mean = math.fsum(cell.accuracy.value for cell in found.cells) / max(len(cells), 1)
    near("corruptions.mean", found.mean, mean)


def _distinct(values: Sequence[object]) -> bool:
    return len(set(values)) == len(values)
