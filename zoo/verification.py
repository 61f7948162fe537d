"""Re-checks a result from its saved files: forward passes and counting, no attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from zoo import datasets
from zoo.arithmetic import full_float32
from zoo.classifier import Classifier, predict
from zoo.classifier_file import load_classifier
from zoo.datasets.base import Dataset
from zoo.encoder import fingerprint
from zoo.errors import UserError, VerificationError
from zoo.evidence import check_adversarials
from zoo.files import read_tensors, sha256_file
from zoo.records import Outcome, Result
from zoo.result_file import read_result
from zoo.verdicts import attack_robust, clean_accuracy, robust_accuracy, verdicts

BLOCK = 1024


@dataclass(frozen=True)
class Finding:
    """One check that passed."""

    check: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The adversarials behind a result."""

    positions: Tensor
    """Row of each in result.examples, int64 (k,)."""
    attack_index: Tensor
    """Which of result.attacks found it, int64 (k,)."""
    images: Tensor
    """float32 (k, C, H, W)."""


def verify_folder(
    folder: Path, *, data_dir: Path | None = None, device: str = "cpu"
) -> list[Finding]:
    """Re-checks `folder`/result.json and the files beside it.

    Raises:
        UserError: a file is missing or unreadable, or the dataset is not at hand.
        VerificationError: a claim does not hold; says which.
    """
    result = read_result(folder)
    classifier = load_named_classifier(folder, result).to(device)
    claims = read_claims(folder, result)
    data = load_named_dataset(result, data_dir)
    return verify(result, classifier, claims, data, device=device)


def load_named_classifier(folder: Path, result: Result) -> Classifier:
    """The classifier that the result names, its file and weights compared by hash."""
    path = folder / result.model.file
    _same_hash(path, result.model.file_sha256, "the classifier")
    classifier = load_classifier(path)
    if fingerprint(classifier) != result.model.weights_sha256:
        raise VerificationError(
            f"the weights in {path} are not those that the result names"
        )
    return classifier


def read_claims(folder: Path, result: Result) -> Claims:
    """The adversarials beside the result, their file compared by hash."""
    path = folder / result.evidence.file
    _same_hash(path, result.evidence.file_sha256, "the evidence")
    tensors, _ = read_tensors(path)
    try:
        return Claims(
            positions=tensors["positions"],
            attack_index=tensors["attack"],
            images=tensors["images"],
        )
    except KeyError as error:
        raise VerificationError(f"{path} lacks the tensor {error}") from None


def load_named_dataset(result: Result, data_dir: Path | None) -> Dataset:
    """The evaluated images, compared by hash."""
    full = datasets.load(result.dataset.name, result.dataset.split, data_dir=data_dir)
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
    device: str = "cpu",
) -> list[Finding]:
    """All checks, in order; see `verify_folder` for what is raised."""
    steps: list[Callable[[], Finding]] = [
        lambda: _check_clean(result, classifier, data, device),
        lambda: _check_completeness(result, claims),
        lambda: _check_claims(result, classifier, claims, data, device),
        lambda: _check_figures(result, data),
    ]
    return [step() for step in steps]


def _same_hash(path: Path, expected: str, what: str) -> None:
    if not path.is_file():
        raise UserError(f"{what} is missing: no file {path}")
    if sha256_file(path) != expected:
        raise VerificationError(f"{what}, {path}, is not the file the result names")


def _check_clean(
    result: Result, classifier: Classifier, data: Dataset, device: str
) -> Finding:
    """Labels and clean predictions, by fresh forward passes."""
    if data.labels.tolist() != result.examples.label:
        raise VerificationError("the stated labels are not those of the dataset")
    found: list[int] = []
    for start in range(0, len(data), BLOCK):
        x = data.images(slice(start, start + BLOCK))
        logits = predict(classifier, x, device=device)
        found += logits.argmax(dim=1).tolist()
    stated = result.examples.clean_prediction
    wrong = [
        i
        for i, (s, f) in enumerate(zip(stated, found, strict=True))
        if s not in (f, -1)
    ]
    if wrong:
        raise VerificationError(
            f"clean predictions differ for {len(wrong)} of {len(found)} examples, "
            f"first for image {result.examples.index[wrong[0]]}"
        )
    return Finding("clean predictions", f"{len(found)} recomputed")


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


def _check_claims(
    result: Result, classifier: Classifier, claims: Claims, data: Dataset, device: str
) -> Finding:
    """Each adversarial: finite, in the box, in the ball, misclassified."""
    for start in range(0, len(claims.positions), BLOCK):
        rows = claims.positions[start : start + BLOCK]
        check = check_adversarials(
            classifier,
            data.images(rows),
            claims.images[start : start + BLOCK],
            data.labels[rows],
            result.threat,
            device=device,
        )
        for row, outcome, size in zip(
            rows.tolist(), check.outcome, check.distance.tolist(), strict=True
        ):
            if outcome is not Outcome.FOOLED:
                raise VerificationError(
                    f"the adversarial of image {result.examples.index[row]} does not "
                    f"count: {outcome.value} (distance {size:.6g}, {result.threat})"
                )
    return Finding(
        "adversarials",
        f"{len(claims.positions)} inside {result.threat} and [0, 1], misclassified",
    )


def _check_figures(result: Result, data: Dataset) -> Finding:
    """Verdicts follow from outcomes, figures from verdicts."""
    examples = result.examples
    if {run.name for run in result.attacks} != examples.outcomes.keys():
        raise VerificationError("the attacks listed are not those with outcomes")
    if verdicts(examples) != examples.verdict:
        raise VerificationError("a stated verdict does not follow from the outcomes")
    undecided = sum(v == "undecided" for v in examples.verdict)
    expected = {
        "clean accuracy": (result.clean, clean_accuracy(examples)),
        "robust accuracy": (result.robust, robust_accuracy(examples)),
        "undecided": (result.undecided, undecided),
        "number of images": (result.dataset.n, len(data)),
        "size of the evidence": (
            result.evidence.count,
            sum(run.fooled for run in result.attacks),
        ),
    }
    for at, run in enumerate(result.attacks):
        outcomes = examples.outcomes[run.name]
        expected[f"robust accuracy under {run.name}"] = (
            run.robust,
            attack_robust(examples, result.attacks, at),
        )
        expected[f"attempted by {run.name}"] = (
            run.attempted,
            len(outcomes) - outcomes.count(Outcome.SKIPPED),
        )
        for name, outcome in (
            ("fooled", Outcome.FOOLED),
            ("refused", Outcome.REFUSED),
            ("undecided", Outcome.UNDECIDED),
        ):
            stated = getattr(run, name)
            expected[f"{name} by {run.name}"] = stated, outcomes.count(outcome)
    for what, (stated, found) in expected.items():
        if stated != found:
            raise VerificationError(f"{what}: stated {stated}, recomputed {found}")
    return Finding("figures", f"clean {result.clean}, robust {result.robust}")
