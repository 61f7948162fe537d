"""The standard linear probe (SLF) on frozen features.

The solver is `robrep_eval.probes.logistic`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

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
from zoo.datasets.base import Dataset, check_same_classes
from zoo.datasets.names import shaped_name
from zoo.encoder import Encoder
from zoo.errors import UserError, nearest
from zoo.label_budget import LabelBudget
from zoo.layout import ON_CPU, Layout
from zoo.records import ProbeRecord
from zoo.threads import fitting_threads, network_work

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Candidates for the L2 penalty per example; the best on held-out data is taken."""
MIN_HELD_OUT = 100
MAX_SPLITS = 5


Protocol = Literal["SLF", "ALF", "AFF"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


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
        if self.protocol not in PROTOCOLS:
            raise UserError(
                f"unknown probe '{self.protocol}'; "
                f"{nearest(str(self.protocol), PROTOCOLS)}"
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
        if self.features != "float32" and self.protocol != "SLF":
            raise UserError(
                f"features are kept for SLF alone; leave their format out of "
                f"{self.protocol}"
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


def split(y: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions for fitting and for validation, stratified by class, reproducible."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(y))
    held: list[int] = []
    labels = y.numpy()
    for label in np.unique(labels):
        members = order[labels[order] == label]
        if len(members) > 1:
            held += members[: max(1, round(share * len(members)))].tolist()
    mask = torch.zeros(len(y), dtype=torch.bool)
    mask[held] = True
    return (~mask).nonzero().flatten(), mask.nonzero().flatten()


def fit_probe(
    encoder: Encoder,
    train: Dataset,
    *,
    test: Dataset | None = None,
    settings: ProbeSettings | None = None,
    layout: Layout = ON_CPU,
    files: FeatureFiles | None = None,
    of: Dataset | None = None,
    team: Team = ALONE,
) -> tuple[Classifier, ProbeRecord]:
    """SLF: the penalty is chosen on a held-out part, then all training data are used.

    Args:
        encoder: Frozen; its features are computed once.
        train: Training split.
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
    scores = validation_scores(rows, rows.y, classes, settings, team)
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
        "validation_accuracy": {f"{p:g}": scores[p] for p in scores},
        "validation_share": settings.validation_share,
        "seed": settings.seed,
        "solver": "L-BFGS on principal axes, multinomial logistic regression, float64",
        "tolerance": settings.tolerance,
    }
    if settings.features != "float32":
        parameters["features"] = settings.features
    record = ProbeRecord(
        protocol="SLF",
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
) -> dict[float, float]:
    """Held-out accuracy of each candidate penalty.

    From the strongest to the weakest, each begun at the solution of the one before.
    """
    rows = z if isinstance(z, Rows) else Rows.of(z, y)
    parts = held_out(y, settings.validation_share, settings.seed)
    total = sum(len(held) for _, held in parts)
    right = dict.fromkeys(settings.penalties, 0)
    for fitting, held in parts:
        problem = Logistic(rows.subset(fitting), classes, team)
        start = None
        for penalty in sorted(settings.penalties, reverse=True):
            start = problem.solve(
                penalty, settings.tolerance, settings.max_iterations, start
            )
            right[penalty] += rows.subset(held).right(problem.head(start))
    return {penalty: count / total for penalty, count in right.items()}


def held_out(y: Tensor, share: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    """One split into fitting and validation part; several where labels are few.

    A handful of held-out images chooses next to nothing, so with fewer than 100 the
    split is drawn anew, up to five times, until that many have been held out.

    Raises:
        UserError: no class has two images, so none can be held out.
    """
    first = split(y, share, seed)
    if not len(first[1]):
        raise UserError(
            f"no class has two of the {len(y)} training images, so none can be held "
            "out to choose the probe's settings"
        )
    count = min(MAX_SPLITS, -(-MIN_HELD_OUT // len(first[1])))
    return [first, *(split(y, share, seed + i) for i in range(1, count))]


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
        raise UserError(
            f"the encoder takes images of shape {encoder.spec.shape} (C, H, W), "
            f"but {data.name} has {data.shape}; "
            f"{shaped_name(data.name, encoder.spec.shape)} resizes them"
        )


def _resizes(encoder: Encoder, shape: tuple[int, int, int]) -> bool:
    """Encoders that resize inside take any height and width."""
    return (
        bool(encoder.spec.options.get("resize")) and shape[0] == encoder.spec.shape[0]
    )
