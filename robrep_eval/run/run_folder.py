"""The folder of one evaluation: what it holds, and whether it is this evaluation's.

result.json, columns-*    the record, written last (see `zoo.result_file`)
classifier.safetensors    encoder and head
adversarials.safetensors  every counted adversarial
local.json                where images of the user's own lie; never published
surrogate-NAME.safetensors  what a transfer attack goes by, encoder and head
run.json, chunks/         identity and progress, so that a killed run resumes
features/                 of large sets, until the probe is fitted
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from robrep_eval.run.identity import differences
from zoo.classifier import Classifier
from zoo.classifier_file import load_classifier, save_classifier
from zoo.compact import Packed
from zoo.datasets.local import LOCAL
from zoo.errors import UserError
from zoo.files import leftovers, read_json, sha256_file, write_json, write_stream
from zoo.pages.html_page import is_page
from zoo.records import Evidence, ProbeRecord, Result
from zoo.result_file import RESULT, read_result, write_result
from zoo.writable import check_writable

RUN, CHUNKS, FEATURES = "run.json", "chunks", "features"
NAMES = (
    *(RESULT, "classifier.safetensors", "adversarials.safetensors"),
    *("fit.safetensors", LOCAL),
)
REPORT = "report.html"
"""The page of a run, in its folder."""
ANOTHER = "choose another --output"
COLUMNS = re.compile(r"\.?columns-[0-9a-f]{8}\.safetensors(\.[a-z0-9_]{8})?")
SURROGATE = re.compile(r"\.?surrogate-zoo-[\w.-]+\.safetensors(\.[a-z0-9_]{8})?")
CHUNK = re.compile(
    r"\.?(\d{8}-[\w.+-]+\.(safetensors|journal)|size\.json)(\.[a-z0-9_]{8})?"
)
"""With what a killed process leaves of them."""
FEATURE = re.compile(r"\.?\d{8}\.safetensors(\.[a-z0-9_]{8})?")


def check_overwrite(folder: Path, model: Path | None) -> None:
    """Before a run is replaced.

    Args:
        folder: The run folder.
        model: The file that is to be evaluated, if it is one.

    Raises:
        UserError: the folder holds something, but no run of robrep's; or the model
            lies among that run's files.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not _holds_run(folder):
        raise UserError(
            f"{folder} holds no run of robrep's, so --overwrite removes nothing there; "
            "choose another --output"
        )
    own = [path.resolve() for path in _own_files(folder)]
    if model is not None and model.resolve() in own:
        raise UserError(
            f"{model} is to be evaluated, but --overwrite would remove it with the run "
            f"in {folder}; choose another --output"
        )


def overwrite(folder: Path, identity: Mapping[str, object]) -> None:
    """Begins another run in place of one that is there; files of others stay.

    Args:
        folder: As `check_overwrite` allows it.
        identity: See `RunFolder`.
    """
    if not _holds_run(folder):
        return
    for path in _own_files(folder):
        path.unlink()
    _remove_empty(folder / CHUNKS)
    _remove_features(folder)
    write_json(folder / RUN, {"identity": dict(identity), "probe": None})


def _holds_run(folder: Path) -> bool:
    """Whether an evaluation of robrep's began here."""
    try:
        content = read_json(folder / RUN)
    except (UserError, OSError):
        return False
    return isinstance(content, dict) and content.keys() == {"identity", "probe"}


def _own_files(folder: Path) -> list[Path]:
    """What a run and its report have written into `folder`, `RUN` itself left out."""
    named = [folder / name for name in NAMES]
    if is_page(folder / REPORT):
        named.append(folder / REPORT)
    found = [
        path
        for path in folder.iterdir()
        if SURROGATE.fullmatch(path.name) or COLUMNS.fullmatch(path.name)
    ]
    found += [part for path in named for part in (path, *leftovers(path))]
    return [p for p in found if p.is_file()] + _chunks(folder) + _features(folder)


def _chunks(folder: Path) -> list[Path]:
    """Progress files; a link to a folder elsewhere is not followed."""
    chunks = folder / CHUNKS
    if chunks.is_symlink() or not chunks.is_dir():
        return []
    return [p for p in chunks.iterdir() if CHUNK.fullmatch(p.name) and p.is_file()]


def _features(folder: Path) -> list[Path]:
    """Files of features; a link to a folder elsewhere is not followed."""
    own = folder / FEATURES
    if own.is_symlink() or not own.is_dir():
        return []
    found = [
        p for each in own.iterdir() if not each.is_symlink() for p in each.glob("*")
    ]
    return [p for p in found if FEATURE.fullmatch(p.name) and p.is_file()]


def _remove_features(folder: Path) -> None:
    """Removes features, and their folders unless something else is in them."""
    for path in _features(folder):
        path.unlink()
    own = folder / FEATURES
    if own.is_dir() and not own.is_symlink():
        for each in own.iterdir():
            _remove_empty(each)
        _remove_empty(own)


def _remove_empty(folder: Path) -> None:
    """Removes a folder unless something is left in it."""
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


@dataclass(frozen=True)
class RunFolder:
    """Files of one evaluation; see the top of this file."""

    path: Path
    identity: Mapping[str, Any]
    """What makes two evaluations the same; compared before anything is reused."""

    @classmethod
    def open(cls, path: Path, identity: Mapping[str, Any]) -> RunFolder:
        """Creates the folder, or goes on with it if it holds the same evaluation.

        Raises:
            UserError: the folder cannot be written, or holds another evaluation (says
                what differs).
        """
        folder = cls(path, identity)
        if folder.run_path.exists():
            folder._compare(read_json(folder.run_path))
            if not folder.result_path.exists():
                check_writable(path, ANOTHER)
            return folder
        if path.is_dir() and any(path.iterdir()):
            raise UserError(
                f"{path} is not empty and is no run folder; choose another --output"
            )
        try:
            folder.chunks.mkdir(parents=True, exist_ok=True)
            write_json(folder.run_path, {"identity": dict(identity), "probe": None})
        except OSError as error:
            raise UserError(
                f"cannot write to {path}: {error.strerror}; {ANOTHER}"
            ) from None
        return folder

    @property
    def run_path(self) -> Path:
        return self.path / RUN

    @property
    def chunks(self) -> Path:
        return self.path / CHUNKS

    @property
    def classifier_path(self) -> Path:
        return self.path / "classifier.safetensors"

    @property
    def evidence_path(self) -> Path:
        return self.path / "adversarials.safetensors"

    @property
    def result_path(self) -> Path:
        return self.path / RESULT

    def _compare(self, content: Any) -> None:
        """Raises `UserError` if the folder is another evaluation's, or damaged."""
        result = self.finished()
        threat = None if result is None else result.threat
        try:
            probe = content["probe"] and ProbeRecord.model_validate(content["probe"])
            parts = differences(content["identity"], self.identity, probe, threat)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._damaged() from None
        if parts:
            raise UserError(
                f"{self.path} holds another evaluation ({'; '.join(parts)}); choose "
                "another --output, or --overwrite it"
            )

    def _damaged(self) -> UserError:
        return UserError(f"{self.run_path} is damaged; use --overwrite to start anew")

    def finished(self) -> Result | None:
        """The result if the run is complete."""
        if not self.result_path.exists():
            return None
        return read_result(self.result_path)

    def classifier(
        self, model: nn.Module | None = None
    ) -> tuple[Classifier, ProbeRecord | None] | None:
        """The classifier of an earlier, unfinished call; `model` brings its code."""
        if not self.classifier_path.exists():
            return None
        probe = read_json(self.run_path)["probe"]
        try:
            record = None if probe is None else ProbeRecord.model_validate(probe)
        except ValidationError:
            raise self._damaged() from None
        return load_classifier(self.classifier_path, model), record

    def save_classifier(
        self, classifier: Classifier, probe: ProbeRecord | None, reference: str
    ) -> None:
        """Keeps the classifier for a resumed run, and for verification."""
        described = None if probe is None else probe.model_dump(mode="json")
        write_json(self.run_path, {"identity": dict(self.identity), "probe": described})
        save_classifier(classifier, self.classifier_path, reference=reference)
        self.fit_path.unlink(missing_ok=True)
        _remove_features(self.path)

    def classifier_sha256(self) -> str:
        return sha256_file(self.classifier_path)

    @property
    def fit_path(self) -> Path:
        """Of a probe that takes long to fit, while it is being fitted."""
        return self.path / "fit.safetensors"

    @property
    def features_path(self) -> Path:
        """Of features that are only needed until the probe is fitted."""
        return self.path / FEATURES

    def surrogate_path(self, reference: str) -> Path:
        """For the surrogate of a transfer attack, such as "zoo:simclr-digits"."""
        return self.path / f"surrogate-{reference.replace(':', '-')}.safetensors"

    def write_evidence(
        self,
        positions: Tensor,
        attack_index: Tensor,
        images: Callable[[], Iterable[Packed]],
        *,
        tolerance: float,
    ) -> Evidence:
        """Saves the counted adversarials; see `zoo.evidence_file.Claims`.

        `images` gives them in parts, so that they need not be in memory together.
        """
        ends, size = [torch.zeros(0, dtype=torch.int64)], 0
        for part in images():
            ends.append(part.ends + size)
            size += len(part.stream)
        write_stream(
            self.evidence_path,
            {"positions": positions, "attack": attack_index, "ends": torch.cat(ends)},
            "stream",
            (part.stream for part in images()),
            size,
        )
        return Evidence(
            file=self.evidence_path.name,
            file_sha256=sha256_file(self.evidence_path),
            count=len(positions),
            tolerance=tolerance,
        )

    def finish(self, result: Result) -> None:
        """Writes the record; progress files are no longer needed."""
        write_result(self.path, result)
        for path in _chunks(self.path):
            path.unlink()
        _remove_empty(self.chunks)
        _remove_features(self.path)
