"""The standard linear probe (SLF, SLF-R) on frozen features.

The head is the same in both, fitted on clean features; they differ in what its penalty
is chosen by. The solver is `robrep_eval.probes.logistic`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from robrep_eval.probes.choice import Judge, held_out
from robrep_eval.probes.feature_files import (
    FORMATS,
    FeatureFiles,
    check_finite,
    extract,
    passes,
)
from robrep_eval.probes.logistic import Logistic
from robrep_eval.probes.neighbours import knn_of_parts
from robrep_eval.probes.rows import Rows
from robrep_eval.probes.team import ALONE, Team
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.datasets.names import shaped_name
from zoo.datasets.same_classes import check_same_classes
from zoo.encoder import Encoder
from zoo.errors import UserError, nearest
from zoo.label_budget import LabelBudget
from zoo.layout import ON_CPU, Layout
from zoo.records import ProbeRecord
from zoo.task_version import GRIDS, PROTOCOLS
from zoo.threads import fitting_threads, network_work
from zoo.threat import ThreatModel

PENALTIES = GRIDS["SLF", PROTOCOLS["SLF"]]
"""Candidates for the L2 penalty per example; the best on held-out data is taken."""

ALWAYS = 1e-5
"""Smallest penalty that is tried in any case; weaker ones are dear to fit."""
PATIENCE = 2
"""Penalties in a row that may be no better before weaker ones are not tried."""
TRIAL_TOLERANCE = 1e-5
"""As `ProbeSettings.tolerance`, of the fits that the choice is made by."""
Protocol = Literal["SLF", "SLF-R", "ALF", "AFF"]
NAMES: tuple[Protocol, ...] = get_args(Protocol)
FROZEN = ("SLF", "SLF-R")
"""Protocols that fit the head on clean features."""


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """How the probe is fitted."""

    protocol: Protocol = "SLF"
    labels: str | None = None
    """Of the training images, e.g. "10%" or "500"; all by default."""
    penalties: tuple[float, ...] = PENALTIES
    validation_share: float = 0.2
    """Part of the training set held out to choose the penalty; never test data."""
    tolerance: float = 1e-6
    """L-BFGS stops when no gradient coordinate (of the mean loss) exceeds this; see
    `fit_linear`."""
    max_iterations: int = 5000
    seed: int = 0
    """Of the split into fitting and validation part."""
    features: str = "float32"
    """Format that features are kept in: "float32" or "float16"."""

    @property
    def l2(self) -> float | None:
        """The penalty asked for; None if held-out images are to choose."""
        return self.penalties[0] if len(self.penalties) == 1 else None

    def __post_init__(self) -> None:
        if self.protocol not in NAMES:
            raise UserError(
                f"unknown probe '{self.protocol}'; {nearest(str(self.protocol), NAMES)}"
            )
        if not self.penalties or len(set(self.penalties)) < len(self.penalties):
            raise UserError(
                "penalties must be one or more, each named once, not "
                f"{tuple(self.penalties)}"
            )
        if not 0 < self.validation_share < 1:
            raise UserError(
                "validation_share must be a share of the training images between 0 "
                f"and 1, not {self.validation_share:g}"
            )
        for penalty in self.penalties:
            if not 0 <= penalty < np.inf:
                raise UserError(
                    f"the probe's penalty (--l2) must be zero or more, not {penalty:g}"
                )
        if self.features not in FORMATS:
            raise UserError(
                f"unknown format of features '{self.features}'; "
                f"{nearest(self.features, FORMATS)}"
            )
        if self.features != "float32" and self.protocol not in FROZEN:
            raise UserError(
                f"features are kept for {' and '.join(FROZEN)} alone; leave their "
                f"format out of {self.protocol}"
            )
        if self.labels is not None:
            object.__setattr__(self, "labels", LabelBudget.parse(self.labels).text)


def features(
    encoder: nn.Module,
    data: Dataset | Tensor,
    layout: Layout = ON_CPU,
) -> Tensor:
    """Features (N, d) of all images, float32 on the CPU, batch by batch.

    Raises:
        UserError: a feature is NaN or infinite.
    """
    if isinstance(data, Dataset):
        z = torch.cat(list(passes(encoder, data, layout)))
    else:
        encoder.eval()
        work = network_work(encoder, data.shape[1:])
        with torch.no_grad(), fitting_threads(work):
            parts = data.split(layout.batch_size)
            z = torch.cat([encoder(x.to(layout.device)).float().cpu() for x in parts])
    check_finite(z)
    return z


def fit_probe(
    encoder: Encoder,
    train: Dataset,
    *,
    threat: ThreatModel | None = None,
    test: Dataset | None = None,
    settings: ProbeSettings | None = None,
    layout: Layout = ON_CPU,
    files: FeatureFiles | None = None,
    of: Dataset | None = None,
    team: Team = ALONE,
) -> tuple[Classifier, ProbeRecord]:
    """SLF, SLF-R: held-out images choose the penalty, then all training data are used.

    Args:
        encoder: Frozen; its features are computed once.
        train: Training split.
        threat: Under which SLF-R chooses.
        test: If given, k-NN accuracy on it is recorded beside the probe.
        settings: Candidates and split.
        layout: Where the encoder lives, and images per forward pass.
        files: Where features are kept; in memory by default.
        of: The whole split that `train` is a part of, whose features may be there.
        team: Processes that do this together, with the same arguments.

    Returns:
        The classifier, in eval mode on its device, and the record of the fit.

    Raises:
        UserError: images of another shape than the encoder's; a class without any
            training image; fewer than two classes; other classes in `test`.
    """
    settings = settings or ProbeSettings()
    began = time.perf_counter()
    check_fit(encoder, train)
    if test is not None:
        check_shape(encoder, test)
        check_same_classes(train, test)
    if files is not None:
        files = replace(files, format=settings.features)
    classes = len(train.classes)
    rows = training_rows(encoder, train, of, settings.features, layout, files, team)
    judge = None
    if settings.protocol == "SLF-R":
        if threat is None:
            raise UserError("SLF-R chooses under attack; say in which ball (threat=)")
        judge = Judge(encoder, train, threat, layout)
    scores = validation_scores(rows, rows.y, classes, settings, team, judge)
    # The largest penalty among the best: the smaller head constant costs nothing.
    best = max(scores, key=lambda penalty: (scores[penalty], penalty))
    # From zeros, whatever was tried before: the head depends on its penalty alone.
    problem = Logistic(rows, classes, team)
    head = problem.head(
        problem.solve(best, settings.tolerance, settings.max_iterations)
    )
    knn = None
    if test is not None:
        parts = feature_parts(encoder, test, settings.features, layout, files, team)
        if team.leads:
            knn = knn_of_parts(rows, parts, test.labels)
    parameters = {
        "l2": best,
        "penalties": list(settings.penalties),
        "validation_accuracy": {f"{p:g}": scores[p] for p in scores},
        "validation_share": settings.validation_share,
        "seed": settings.seed,
        "solver": "L-BFGS on principal axes, multinomial logistic regression, float64",
        "tolerance": settings.tolerance,
        **({} if judge is None else {"choice": judge.said()}),
    }
    if settings.features != "float32":
        parameters["features"] = settings.features
    record = ProbeRecord(
        protocol=settings.protocol,
        parameters=parameters,
        train=f"{train.name}/{train.split}",
        train_n=len(train),
        train_accuracy=rows.right(head) / len(train),
        validation_accuracy=scores[best],
        knn_accuracy=knn,
        seconds=time.perf_counter() - began,
    )
    classifier = Classifier(
        encoder, head, classes=classes, shape=encoder.spec.shape
    ).to(layout.device)
    return classifier, record


def training_rows(
    encoder: nn.Module,
    train: Dataset,
    of: Dataset | None,
    format: str,
    layout: Layout,
    files: FeatureFiles | None,
    team: Team,
) -> Rows:
    """Features and labels; of a part, from the files of the whole if they are there."""
    chosen, data = None, train
    part = of is not None and len(of) > len(train)
    if part and of and files and files.complete(encoder, of):
        chosen = torch.from_numpy(np.searchsorted(of.positions, train.positions))
        data = of
    parts = feature_parts(encoder, data, format, layout, files, team)
    return Rows(parts, data.labels, layout.device, chosen)


def feature_parts(
    encoder: nn.Module,
    data: Dataset,
    format: str,
    layout: Layout,
    files: FeatureFiles | None,
    team: Team,
) -> list[Tensor]:
    """Features of all images in parts, on the CPU, in files if there is a folder."""
    if files is not None:
        return extract(encoder, data, files, layout, team)
    parts = [z.to(FORMATS[format]) for z in passes(encoder, data, layout)]
    for z in parts:
        check_finite(z)
    return parts


def validation_scores(
    z: Tensor | Rows,
    y: Tensor,
    classes: int,
    settings: ProbeSettings,
    team: Team = ALONE,
    judge: Judge | None = None,
) -> dict[float, float]:
    """Held-out accuracy of each candidate penalty.

    From the strongest to the weakest, each begun at the solution of the one before,
    below `ALWAYS` until `PATIENCE` in a row were no better than the best.

    Args:
        z: Features (N, d).
        y: Labels (N,).
        classes: Number of classes.
        settings: Candidates and split.
        team: Processes that do this together.
        judge: Says of how many held-out images a head is right; by default of all of
            them, clean.
    """
    rows = z if isinstance(z, Rows) else Rows.of(z, y)
    parts = held_out(y, settings.validation_share, settings.seed)
    if judge is not None:
        parts = [(fitting, judge.chosen(held)) for fitting, held in parts]
    problems = [Logistic(rows.subset(fitting), classes, team) for fitting, _ in parts]
    starts: list[Tensor | None] = [None] * len(parts)
    tolerance = max(settings.tolerance, TRIAL_TOLERANCE)
    right: list[int] = []
    penalties = sorted(settings.penalties, reverse=True)
    for penalty in penalties:
        right.append(0)
        for at, (problem, (_, held)) in enumerate(zip(problems, parts, strict=True)):
            found = problem.solve(
                penalty, tolerance, settings.max_iterations, starts[at]
            )
            head, starts[at] = problem.head(found), found
            if judge is None:
                right[-1] += rows.subset(held).right(head)
            else:
                right[-1] += judge.right(head, held)
        if penalty < ALWAYS and len(right) > PATIENCE + right.index(max(right)):
            break
    total = sum(len(held) for _, held in parts)
    return {p: count / total for p, count in zip(penalties, right, strict=False)}


def check_fit(encoder: Encoder, train: Dataset) -> None:
    """Raises `UserError` if the encoder cannot be probed on this data."""
    check_shape(encoder, train)
    counts = torch.bincount(train.labels, minlength=len(train.classes))
    empty = [train.classes[i] for i in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        raise UserError(
            f"{train.name}/{train.split} has no image of class "
            f"{', '.join(map(repr, empty[:3]))}; a probe needs every class"
        )


def check_shape(encoder: Encoder, data: Dataset) -> None:
    """Raises `UserError` if the encoder does not take these images."""
    if data.shape != encoder.spec.shape and not _resizes(encoder, data.shape):
        wanted = encoder.spec.shape
        hint = f"{shaped_name(data.name, wanted)} resizes them"
        if data.shape[0] not in (1, wanted[0]):
            hint = "images in colour are not made grey; store them so, or take others"
        raise UserError(
            f"the encoder takes images of shape {wanted} (C, H, W), "
            f"but {data.name} has {data.shape}; {hint}"
        )


def _resizes(encoder: Encoder, shape: tuple[int, int, int]) -> bool:
    """Encoders that resize inside take any height and width."""
    return (
        bool(encoder.spec.options.get("resize")) and shape[0] == encoder.spec.shape[0]
    )
