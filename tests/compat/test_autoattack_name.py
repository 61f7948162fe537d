"""The name `autoattack` makes robustbench importable and runs pyautoattack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import autoattack
import pyautoattack
import pytest
import torch

from zoo.classifier import Classifier
from zoo.datasets.base import Dataset


def test_robustbench_imports_in_a_fresh_process() -> None:
    code = (
        "import robustbench; "
        "from robustbench import benchmark; "
        "from robustbench.utils import clean_accuracy, load_model"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_original_calling_convention_runs_pyautoattack(
    plain_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    x, y = digits_test.images(slice(12)), digits_test.labels[:12]
    theirs = pyautoattack.AutoAttack(
        plain_classifier,
        norm="Linf",
        eps=0.1,
        seed=1,
        version="custom",
        attacks=["apgd-ce"],
    )
    want, want_labels = theirs.run_standard_evaluation(x, y, batch_size=12)
    ours = autoattack.AutoAttack(
        plain_classifier,
        "Linf",
        0.1,
        1,
        False,
        ["apgd-ce"],
        "custom",
        log_path=tmp_path / "log.txt",
    )
    got, labels = ours.run_standard_evaluation(x, y, bs=12, return_labels=True)
    assert torch.equal(got, want)
    assert torch.equal(labels, want_labels)
    assert torch.equal(ours.run_standard_evaluation(x, y, bs=12), want)
    assert "robust accuracy" in (tmp_path / "log.txt").read_text()


def test_what_cannot_be_done_is_refused(plain_classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="TensorFlow"):
        autoattack.AutoAttack(plain_classifier, is_tf_model=True)
    with pytest.raises(ValueError, match="needs attacks_to_run"):
        autoattack.AutoAttack(plain_classifier, version="custom")
