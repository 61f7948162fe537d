"""Re-checks a result from its saved files: forward passes and counting, no attack."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo import comparable, datasets
from zoo.arithmetic import full_float32
from zoo.classifier import Classifier, predict
from zoo.classifier_file import load_classifier
from zoo.datasets.base import Dataset
from zoo.datasets.foreign import as_datasets
from zoo.datasets.loading import load_recorded
from zoo.datasets.local import noted
from zoo.encoder import fingerprint
from zoo.errors import VerificationError
from zoo.evidence import check_adversarials
from zoo.evidence_file import Claims, read_claims, same_hash
from zoo.layout import Layout
from zoo.processes import ALONE, Company
from zoo.records import Outcome, Result
from zoo.recount import agree, check_figures, check_measurements
from zoo.remeasure import check_bound, check_lipschitz
from zoo.result_file import read_result
from zoo.task_version import check_version

BLOCK = 1024
"""Images that are in memory together, if they are small."""
BLOCK_BYTES = 1 << 27
"""Of float32 images that are in memory together."""
SIZES = (100, 37)
"""Of the batches of the two passes over clean images."""
SHARED = 6
"""Checks that end with those in which processes share forward passes."""
TIE = 1e-5
"""Share of the spread of logits by which rounding may move one."""


@dataclass(frozen=True)
class Finding:
    """One check that passed."""

    check: str
    detail: str


def verify_folder(
    folder: str | Path,
    *,
    model: nn.Module | None = None,
    dataset: object | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    company: Company = ALONE,
) -> list[Finding]:
    """Re-checks `folder`/result.json and the files beside it.

    Args:
        folder: Of the run.
        model: The module, if the result is about one of the user's own.
        dataset: The images, if they have no registered name; see
            `zoo.datasets.foreign`. Or where they are (imagefolder:PATH), by default
            where they were.
        data_dir: Where a registered dataset lies.
        device: For the passes.
        company: Processes that share them, each of which calls this.

    Raises:
        UserError: a file is missing or unreadable, or the dataset is not at hand.
        VerificationError: a claim does not hold; says which.
    """
    folder = Path(folder)
    result = read_result(folder)
    classifier = load_named_classifier(folder, result, model).to(device)
    place = noted(folder)  # never what the result says: others may have written a path
    data = load_named_dataset(result, data_dir, dataset or place)
    claims = read_claims(folder, result, data)
    return verify(
        result,
        classifier,
        claims,
        data,
        data_dir=data_dir,
        images=dataset if isinstance(dataset, str) else place,
        device=device,
        company=company,
    )


def load_named_classifier(
    folder: Path, result: Result, model: nn.Module | None = None
) -> Classifier:
    """The classifier that the result names, its file and weights compared by hash."""
    path = folder / result.model.file
    same_hash(path, result.model.file_sha256, "the classifier")
    classifier = load_classifier(path, model)
    if fingerprint(classifier) != result.model.weights_sha256:
        raise VerificationError(
            f"the weights in {path} are not those that the result names"
        )
    return classifier


def load_named_dataset(
    result: Result, data_dir: Path | None, dataset: object | None = None
) -> Dataset:
    """The evaluated images, compared by hash; `dataset` as in `verify_folder`."""
    named = result.dataset
    if dataset is None:
        full = load_recorded(named.name, named.split, data_dir)
    elif isinstance(dataset, str):
        full = datasets.load(dataset, named.split, data_dir=data_dir)
    else:
        own, _ = as_datasets(dataset, None, classes=result.dataset.classes)
        assert own is not None
        full = own
    rows = result.examples.index
    if rows and not 0 <= min(rows) <= max(rows) < len(full):
        raise VerificationError(
            f"the result names image {max(rows)} of {len(full)} in "
            f"{result.dataset.name}/{result.dataset.split}"
        )
    data = full.subset(rows)
    if data.fingerprint() != result.dataset.sha256:
        raise VerificationError(
            f"the images of {result.dataset.name}/{result.dataset.split} here are not "
            "those that were evaluated (SHA-256 differs)"
        )
    return data


@full_float32()
def verify(
    result: Result,
    classifier: Classifier,
    claims: Claims,
    data: Dataset,
    *,
    data_dir: Path | None = None,
    images: str | None = None,
    device: str = "cpu",
    company: Company = ALONE,
) -> list[Finding]:
    """All checks, in order; see `verify_folder` for what is raised.

    `images` is where a user's own are, as imagefolder:PATH. Of several processes the
    leading one makes all checks; the others those in which forward passes are shared.
    """
    steps: list[Callable[[], Finding]] = [
        lambda: _check_dataset(result, classifier, data),
        lambda: Finding("images", comparable.images(result, data)),
        lambda: Finding("task", check_version(result)),
        lambda: _check_clean(result, classifier, data, device, company),
        lambda: _check_completeness(result, claims),
        lambda: check_claims(result, classifier, claims, data, device, company),
        lambda: _check_figures(result),
        lambda: Finding("battery", comparable.battery(result)),
        lambda: _check_measurements(result, classifier, data, device),
        lambda: Finding("labels", comparable.labels(result, data_dir, images)),
    ]
    return [step() for step in (steps if company.leads else steps[:SHARED])]


def block(shape: tuple[int, int, int]) -> int:
    """Images of `shape` (C, H, W) that are in memory together."""
    return max(1, min(BLOCK, BLOCK_BYTES // (4 * math.prod(shape))))


def _check_dataset(result: Result, classifier: Classifier, data: Dataset) -> Finding:
    """Classes and shape are those of the images and of the classifier."""
    stated = (result.dataset.classes, result.dataset.shape)
    agree("classes and image shape", stated, (len(data.classes), data.shape))
    agree("those of the classifier", stated, (classifier.classes, classifier.shape))
    if data.labels.tolist() != result.examples.label:
        raise VerificationError("the stated labels are not those of the dataset")
    return Finding("dataset", f"{data.name}/{data.split}, {len(data.classes)} classes")


def _check_clean(
    result: Result,
    classifier: Classifier,
    data: Dataset,
    device: str,
    company: Company,
) -> Finding:
    """Clean predictions, by fresh forward passes at two batch sizes.

    A prediction is what one of them gives; it is undecided only where logits are not
    finite, or rounding could decide between two classes.
    """
    own: list[int] = []
    stated = torch.tensor(result.examples.clean_prediction)
    size = block(data.shape)
    for number in company.share(math.ceil(len(data) / size)):
        start = number * size
        x = data.images(slice(start, start + size))
        part = stated[start : start + size]
        possible = _possible(classifier, x, device)
        column = (part + 1).clamp(max=result.dataset.classes).unsqueeze(1)
        agrees = possible.gather(1, column).squeeze(1) & (part < result.dataset.classes)
        own += (start + (~agrees).nonzero().flatten()).tolist()
    wrong = sorted(row for rows in company.all(own) for row in rows)
    if wrong:
        raise VerificationError(
            f"clean predictions differ for {len(wrong)} of {len(stated)} examples, "
            f"first for image {result.examples.index[wrong[0]]}"
        )
    return Finding("clean predictions", f"{len(stated)} recomputed")


def _possible(classifier: Classifier, x: Tensor, device: str) -> Tensor:
    """Bool (n, 1 + classes): which clean predictions an honest evaluation may state;
    column 0 is "undecided"."""
    passes = torch.stack(
        [
            predict(classifier, x, Layout(device=device, batch_size=size))
            for size in SIZES
        ]
    )
    finite = passes.isfinite().all(dim=2).all(dim=0)
    first, second = passes.nan_to_num().topk(2, dim=2).values.unbind(dim=2)
    spread = first - passes.nan_to_num().amin(dim=2)
    found = passes.argmax(dim=2)
    tied = (first - second <= TIE * spread).any(dim=0) | (found[0] != found[1])
    possible = torch.zeros(passes.shape[1:], dtype=torch.bool).scatter(1, found.T, True)
    return torch.cat(
        [(tied | ~finite).unsqueeze(1), possible & finite.unsqueeze(1)], dim=1
    )


def _check_completeness(result: Result, claims: Claims) -> Finding:
    """Each stated fooling has one adversarial, and each adversarial is stated."""
    stated = {
        (row, at)
        for at, run in enumerate(result.attacks)
        for row, outcome in enumerate(result.examples.outcomes.get(run.name, []))
        if outcome is Outcome.FOOLED
    }
    pairs = list(
        zip(claims.positions.tolist(), claims.attack_index.tolist(), strict=True)
    )
    if len(pairs) != len(claims.images) or len(set(pairs)) != len(pairs):
        raise VerificationError("the evidence file is inconsistent")
    if set(pairs) != stated:
        raise VerificationError(
            f"{len(stated)} foolings are stated but there are adversarials for "
            f"{len(stated & set(pairs))} of them, and {len(set(pairs) - stated)} others"
        )
    return Finding("evidence", f"an adversarial for each of {len(stated)} foolings")


def check_claims(
    result: Result,
    classifier: Classifier,
    claims: Claims,
    data: Dataset,
    device: str,
    company: Company = ALONE,
) -> Finding:
    """Each adversarial: finite, in the box, in the ball, misclassified.

    Raises:
        VerificationError: the first that is not.
    """
    size = block(data.shape)
    fault = None
    for number in company.share(math.ceil(len(claims.positions) / size)):
        part = slice(number * size, (number + 1) * size)
        if reason := _fault(result, classifier, claims, part, data, device):
            fault = [number, reason]
            break
    if faults := sorted(filter(None, company.all(fault))):
        raise VerificationError(str(faults[0][1]))
    return Finding(
        "adversarials",
        f"{len(claims.positions)} inside {result.threat} and [0, 1], misclassified",
    )


def _fault(
    result: Result,
    classifier: Classifier,
    claims: Claims,
    part: slice,
    data: Dataset,
    device: str,
) -> str | None:
    """Why the first of these adversarials that does not count does not."""
    rows = claims.positions[part]
    check = check_adversarials(
        classifier,
        data.images(rows),
        claims.images[part],
        data.labels[rows],
        result.threat,
        device=device,
    )
    for row, outcome, distance in zip(
        rows.tolist(), check.outcome, check.distance.tolist(), strict=True
    ):
        if outcome is not Outcome.FOOLED:
            return (
                f"the adversarial of image {result.examples.index[row]} does not "
                f"count: {outcome.value} (distance {distance:.6g}, {result.threat})"
            )
    return None


def _check_figures(result: Result) -> Finding:
    """Verdicts follow from outcomes, figures from verdicts."""
    check_figures(result)
    return Finding("figures", f"clean {result.clean}, robust {result.robust}")


def _check_measurements(
    result: Result, classifier: Classifier, data: Dataset, device: str
) -> Finding:
    """What follows from columns, and what forward passes give again."""
    found = result.measurements
    report, curve = found.health, found.eps_curve
    used = curve.points[0].robust.n if curve and curve.points else len(data)
    used = min(used, report.n) if report else used
    rows = {index: row for row, index in enumerate(data.positions.tolist())}
    taken = [rows[position] for position in data.take(max(used, 1)).positions.tolist()]
    check_measurements(result, [taken, range(len(taken))])
    if found.bound:
        check_bound(result, found.bound, classifier, data, Layout(device=device))
    if found.lipschitz:
        check_lipschitz(
            result, found.lipschitz, classifier, data, Layout(device=device)
        )
    names = [name for name, value in found if value]
    return Finding("measurements", ", ".join(names) or "none")
