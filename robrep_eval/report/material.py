"""What a report is made from: a finished run, and what can be loaded of its files.

The record alone gives most of the page. Images, weights or adversarials that are
missing, or are not those that the record names, leave gaps, each with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from robrep_eval.run.run_folder import RunFolder
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.datasets.local import noted
from zoo.errors import RobrepError, UserError, VerificationError
from zoo.evidence_file import Claims, read_claims
from zoo.measurements import Measurements
from zoo.records import Result
from zoo.result_file import RESULT, read_result
from zoo.verification import load_named_classifier, load_named_dataset


@dataclass(frozen=True, kw_only=True)
class Material:
    """A finished run; None for what could not be loaded."""

    result: Result
    measured: Measurements
    data: Dataset | None = None
    """The evaluated images, in the order of the record."""
    classifier: Classifier | None = None
    claims: Claims | None = None
    gaps: tuple[str, ...] = ()
    """Why something could not be loaded, one sentence each."""

    def class_name(self, label: int) -> str:
        """The dataset's name of a class, or its number."""
        names = self.data.classes if self.data is not None else ()
        return names[label] if 0 <= label < len(names) else str(label)


def finished_folder(run: Path) -> Path:
    """The folder of a finished run, from its path or that of its result.json.

    Raises:
        UserError: no such folder, no run folder, or a run that has not finished.
    """
    folder = run.parent if run.name == RESULT else run
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; name the folder of a run")
    if not (folder / RESULT).is_file():
        if RunFolder(folder, {}).run_path.is_file():
            raise UserError(
                f"the run in {folder} has not finished; the same robrep-eval command "
                "again goes on with it"
            )
        raise UserError(f"{folder} is no run folder: it holds no {RESULT}")
    return folder


def gather(
    folder: Path,
    *,
    dataset: str | Dataset | None,
    data_dir: Path | None,
    device: str,
    model: nn.Module | None = None,
) -> Material:
    """Reads the record, then as much of the rest as there is.

    Args:
        folder: Of a finished run.
        dataset: The images, or where they are now if not under the recorded name.
        data_dir: Where a copy of the dataset lies.
        device: Where the classifier is to run.
        model: The module, if the run is about one of the user's own.

    Raises:
        UserError: a record that cannot be read.
    """
    result = read_result(folder)
    measured = result.measurements
    gaps: list[str] = []
    data: Dataset | None = None
    classifier: Classifier | None = None
    claims: Claims | None = None
    try:
        data = _images(result, dataset or noted(folder), data_dir)
    except (RobrepError, OSError) as error:
        gaps.append(f"The images could not be loaded: {error}.")
    try:
        classifier = load_named_classifier(folder, result, model).to(device)
    except (RobrepError, OSError) as error:
        gaps.append(f"The classifier could not be loaded: {error}.")
    try:
        claims = read_claims(folder, result, data)
    except (RobrepError, OSError) as error:
        gaps.append(f"The adversarials could not be loaded: {error}.")
    return Material(
        result=result,
        measured=measured,
        data=data,
        classifier=classifier,
        claims=claims,
        gaps=tuple(gaps),
    )


def _images(
    result: Result, dataset: str | Dataset | None, data_dir: Path | None
) -> Dataset:
    """The evaluated images, compared by hash."""
    if isinstance(dataset, Dataset):
        if dataset.fingerprint() != result.dataset.sha256:
            raise VerificationError(f"those given as '{dataset.name}' are other images")
        return dataset
    return load_named_dataset(result, data_dir, dataset)
