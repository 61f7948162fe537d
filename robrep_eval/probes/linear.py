"""The standard linear probe (SLF) on frozen features, and k-NN as a sanity figure.

The solver is `robrep_eval.probes.logistic`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robrep_eval.probes.logistic import fit_linear
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
KNN_NEIGHBOURS = 20
KNN_TEMPERATURE = 0.1
MAX_KNN_TRAIN = 50_000


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
    encoder.eval()
    shape = data.shape[1:] if isinstance(data, Tensor) else data.shape
    with torch.inference_mode(), fitting_threads(network_work(encoder, shape)):
        blocks = (
            (part.to(layout.device) for part in data.split(layout.batch_size))
            if isinstance(data, Tensor)
            else data.batches(layout)
        )
        parts = [encoder(x).float().cpu() for x in blocks]
    z = torch.cat(parts).clone()
    if not bool(z.isfinite().all()):
        raise UserError(
            "the encoder gives NaN or infinite features for "
            f"{int((~z.isfinite().all(dim=1)).sum())} of {len(z)} images; "
            "it cannot be probed"
        )
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


def accuracy(head: nn.Module, z: Tensor, y: Tensor) -> float:
    """Share of rows whose largest logit is that of the label."""
    with torch.inference_mode():
        return float((head(z).argmax(dim=1) == y.to(z.device)).float().mean())


def fit_probe(
    encoder: Encoder,
    train: Dataset,
    *,
    test: Dataset | None = None,
    settings: ProbeSettings | None = None,
    layout: Layout = ON_CPU,
) -> tuple[Classifier, ProbeRecord]:
    """SLF: the penalty is chosen on a held-out part, then all training data are used.

    Args:
        encoder: Frozen; its features are computed once.
        train: Training split.
        test: If given, k-NN accuracy on it is recorded beside the probe.
        settings: Candidates and split.
        layout: Where the encoder lives, and images per forward pass.

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
    y, classes = train.labels, len(train.classes)
    z = features(encoder, train, layout).to(layout.device)
    scores = validation_scores(z, y, classes, settings)
    # The largest penalty among the best: the smaller head constant costs nothing.
    best = max(scores, key=lambda penalty: (scores[penalty], penalty))
    head = fit_linear(
        z,
        y,
        classes=classes,
        l2=best,
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
    )
    knn = None
    if test is not None:
        z_test = features(encoder, test, layout)
        knn = knn_accuracy(z.cpu(), y, z_test, test.labels)
    record = ProbeRecord(
        protocol="SLF",
        parameters={
            "l2": best,
            "validation_accuracy": {f"{p:g}": scores[p] for p in scores},
            "validation_share": settings.validation_share,
            "seed": settings.seed,
            "solver": "L-BFGS on principal axes, multinomial logistic regression, "
            "float64",
            "tolerance": settings.tolerance,
        },
        train=f"{train.name}/{train.split}",
        train_n=len(train),
        train_accuracy=accuracy(head, z, y),
        validation_accuracy=scores[best],
        knn_accuracy=knn,
        seconds=time.perf_counter() - began,
    )
    classifier = Classifier(
        encoder, head, classes=classes, shape=encoder.spec.shape
    ).to(layout.device)
    return classifier, record


def validation_scores(
    z: Tensor, y: Tensor, classes: int, settings: ProbeSettings
) -> dict[float, float]:
    """Held-out accuracy of each candidate penalty."""
    parts = held_out(y, settings.validation_share, settings.seed)
    total = sum(len(held) for _, held in parts)
    scores = {}
    for penalty in settings.penalties:
        right = 0
        for fitting, held in parts:
            head = fit_linear(
                z[fitting],
                y[fitting],
                classes=classes,
                l2=penalty,
                tolerance=settings.tolerance,
                max_iterations=settings.max_iterations,
            )
            right += round(accuracy(head, z[held], y[held]) * len(held))
        scores[penalty] = right / total
    return scores


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


@fitting_threads()
def knn_accuracy(
    z_train: Tensor, y_train: Tensor, z_test: Tensor, y_test: Tensor
) -> float:
    """Cosine k-NN with weights exp(-distance / T), k = 20 (Wu et al. 2018, 1805.01978).

    At most the first 50,000 training points are used.
    """
    from sklearn.neighbors import KNeighborsClassifier

    def weigh(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.exp(-distance / KNN_TEMPERATURE)

    model = KNeighborsClassifier(
        min(KNN_NEIGHBOURS, len(z_train)),
        metric="cosine",
        algorithm="brute",
        weights=weigh,
    )
    model.fit(z_train[:MAX_KNN_TRAIN].numpy(), y_train[:MAX_KNN_TRAIN].numpy())
    return float((model.predict(z_test.numpy()) == y_test.numpy()).mean())
