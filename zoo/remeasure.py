"""Measurements of a result that forward passes give again: the bound, certificates.

How far an attack reached is stated by whoever ran it. All that follows from it, the
head and the clean images is computed here, and compared with it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoo.affordable import fewest
from zoo.bound import features_and_logits, from_reached, linear_head
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.errors import UserError, VerificationError
from zoo.feature_metric import METRICS, WHITENED
from zoo.layout import ON_CPU, Layout
from zoo.lipschitz import certify_lipschitz
from zoo.measurements import BoundEstimate, Limit, LipschitzCertificate
from zoo.records import Proportion, Result, Verdict
from zoo.recount import agree, check_curve, enough, holds, near
from zoo.whitening import whitened

ROUNDING = 1e-3
"""Relative difference that other devices and batch sizes may bring into a value."""
OWN = ("(displacement)", "(cross-entropy)")
"""Attacks of the bound's own, beside those of the battery."""
STATED = ("displacement", "adversarial_loss")
"""Columns of the bound that attacks gave."""


def check_bound(
    result: Result,
    found: BoundEstimate,
    classifier: Classifier,
    data: Dataset,
    layout: Layout = ON_CPU,
) -> None:
    """The bound from what attacks are said to have reached.

    Raises:
        VerificationError: a value that does not follow from it.
    """
    n = len(found.examples.get("b2", ()))
    agree("bound: lengths of the columns", _lengths(found.examples), {n})
    agree("bound.settings.images", found.settings.get("images", n), n)
    enough("bound", n, fewest(result).bound, len(data))
    columns = {name: np.array(values) for name, values in found.examples.items()}
    units = found.feature_metric
    holds(f"bound: units '{units}'", units in METRICS)
    clean = features_and_logits(classifier, data.images(slice(n)), layout)
    if units == WHITENED:
        holds("bound: whitened by too few images", n > clean[0].shape[1])
        classifier = whitened(classifier, clean[0])
        clean = features_and_logits(classifier, data.images(slice(n)), layout)
    y = data.labels[:n]
    weight = linear_head(classifier).weight.detach().cpu()
    reached = [torch.from_numpy(_column(columns, name)) for name in STATED]
    holds("bound: a displacement below 0", bool((reached[0] >= 0).all()))
    again = from_reached(
        clean,
        y,
        weight,
        (reached[0], reached[1]),
        strongest=found.strongest,
        settings=found.settings,
    )
    agree("bound: columns", columns.keys(), again.examples.keys())
    for name, values in again.examples.items():
        close(f"bound.examples.{name}", columns[name], np.array(values))
    holds(
        "bound: an adversarial loss lies below the clean one or above b2",
        _between(columns["clean_loss"], columns["adversarial_loss"], columns["b2"]),
    )
    for name in columns.keys() - {"margin"}:
        near(f"bound.{name}", getattr(found, name), float(columns[name].mean()))
    near("bound.tightness", found.tightness, found.adversarial_loss / found.b2)
    name = "relative_displacement"
    near(f"bound.{name}", getattr(found, name), getattr(again, name), ROUNDING)
    _check_fooled(result, columns, y, n)
    _check_limits(found, again, clean, y, weight)
    _check_strongest(result, found, n)


def _check_fooled(
    result: Result, columns: dict[str, npt.NDArray[np.float64]], y: Tensor, n: int
) -> None:
    """An image that was fooled left its class: no small displacement, no small loss.

    Its feature crossed a boundary, which is no nearer than the margin, and its label's
    probability fell below that of another class, so to one half or less.
    """
    examples = result.examples
    fooled = np.array(examples.clean_prediction[:n]) == y.numpy()
    fooled &= np.array([verdict is Verdict.FOOLED for verdict in examples.verdict[:n]])
    slack = ROUNDING * np.median(columns["margin"])
    crossed = columns["displacement"] >= columns["margin"] * (1 - ROUNDING) - slack
    lost = columns["adversarial_loss"] >= math.log(2) * (1 - ROUNDING)
    holds(
        "bound: a fooled image is displaced less than its margin",
        bool(crossed[fooled].all()),
    )
    holds("bound: a fooled image has a loss below log 2", bool(lost[fooled].all()))


def _check_limits(
    found: BoundEstimate,
    again: BoundEstimate,
    clean: tuple[Tensor, Tensor],
    y: Tensor,
    weight: Tensor,
) -> None:
    """What limits the examples, but for those that rounding could decide."""
    stated = torch.tensor(found.examples["displacement"], dtype=torch.float64)
    loss = torch.tensor(found.examples["adversarial_loss"], dtype=torch.float64)
    counts = []
    for factor in (1 - ROUNDING, 1 + ROUNDING):
        moved = from_reached(
            clean, y, weight, (stated * factor, loss), strongest={}, settings={}
        )
        counts.append(moved.limits)
    margin = torch.tensor(again.examples["margin"])
    ties = int((margin < ROUNDING * margin.median()).sum())
    agree("bound.limits: number of images", sum(found.limits.values()), len(y))
    for limit in Limit:
        few, many = sorted(count[limit] for count in counts)
        holds(
            f"bound.limits.{limit}: stated {found.limits.get(limit, 0)}, recomputed "
            f"{again.limits[limit]}",
            few - ties <= found.limits.get(limit, 0) <= many + ties,
        )
    passing = Proportion.of(found.limits.get(Limit.NONE, 0), len(y))
    agree("bound.estimated_robust", found.estimated_robust, passing)
    failing = {k: v for k, v in found.limits.items() if v}
    failing.pop(Limit.NONE, None)
    most = max(failing.values(), default=0)
    largest: list[Limit] = [k for k, v in failing.items() if v == most]
    holds(
        f"bound.limited_by: stated {found.limited_by}, which is not the most frequent",
        found.limited_by in (largest or [Limit.NONE]),
    )


def _check_strongest(result: Result, found: BoundEstimate, n: int) -> None:
    """Attacks that moved features are the bound's own and those that fooled."""
    fooled = [
        run.name
        for run in result.attacks
        if "fooled" in result.examples.outcomes[run.name][:n]
    ]
    agree("bound.strongest: attacks", set(found.strongest), {*OWN, *fooled})
    counts = found.strongest.values()
    holds(
        "bound.strongest: counts do not add up to the images",
        min(counts) >= 0 and sum(counts) <= n,
    )


def check_lipschitz(
    result: Result,
    found: LipschitzCertificate,
    classifier: Classifier,
    data: Dataset,
    layout: Layout = ON_CPU,
) -> None:
    """The certificate from the weights and the clean images.

    Raises:
        VerificationError: a value that does not follow, or an encoder that has none.
    """
    try:
        again = certify_lipschitz(classifier, data, data.labels, result.threat, layout)
    except UserError as error:
        raise VerificationError(f"lipschitz: {error}") from None
    agree("lipschitz.norm", found.norm, again.norm)
    agree("lipschitz.method", found.method, again.method)
    near("lipschitz.constant", found.constant, again.constant, 1e-6)
    radius = np.array(found.radius)
    close("lipschitz.radius", radius, np.array(again.radius))
    certified = Proportion.of(int((radius > result.threat.eps).sum()), len(radius))
    agree("lipschitz.certified", found.certified, certified)
    close(
        "lipschitz.curve.radius",
        np.array(found.curve.radius),
        np.array(again.curve.radius),
    )
    check_curve("lipschitz.curve", found.curve, radius)


def close(
    what: str, stated: npt.NDArray[np.float64], found: npt.NDArray[np.float64]
) -> None:
    """Raises `VerificationError` unless two columns are equal but for rounding.

    A value near 0 may differ by what rounding does to those of usual size.
    """
    agree(f"{what}: values", stated.shape, found.shape)
    usual = float(np.median(np.abs(found))) if len(found) else 0.0
    wrong = ~np.isclose(stated, found, rtol=ROUNDING, atol=ROUNDING * usual)
    if wrong.any():
        row = int(wrong.argmax())
        raise VerificationError(
            f"{what}: stated {stated[row]:.6g} in row {row}, recomputed "
            f"{found[row]:.6g}; {int(wrong.sum())} of {len(found)} differ"
        )


def _between(
    low: npt.NDArray[np.float64],
    value: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
) -> bool:
    slack = ROUNDING * np.median(high)
    return bool(((low - slack <= value) & (value <= high + slack)).all())


def _column(
    columns: dict[str, npt.NDArray[np.float64]], name: str
) -> npt.NDArray[np.float64]:
    holds(f"bound.examples has no column {name}", name in columns)
    return columns[name]


def _lengths(columns: dict[str, list[float]]) -> set[int]:
    return {len(values) for values in columns.values()}
