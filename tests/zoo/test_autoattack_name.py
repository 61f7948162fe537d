"""The name `autoattack`: lent to pyautoattack while robrep runs, never taken."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution
from pathlib import Path

import pyautoattack
import pytest
import torch

from zoo.autoattack.stand_in import AutoAttack
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset

pytestmark = pytest.mark.slow


def run(code: str, *folders: Path) -> str:
    """What a fresh Python prints, with `folders` first on its path."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_robustbench_imports_beside_robrep() -> None:
    code = (
        "import robrep_eval, sys; assert 'torch' not in sys.modules\n"
        "import robustbench\n"
        "from robustbench import benchmark\n"
        "from robustbench.utils import clean_accuracy, load_model\n"
        "from autoattack.autoattack import AutoAttack\n"
        "from autoattack.autopgd_base import APGDAttack\n"
        "import autoattack.state, pyautoattack.state as real\n"
        "assert autoattack.state.EvaluationState is real.EvaluationState\n"
        "assert real.__spec__.name == 'pyautoattack.state'\n"
        "print(AutoAttack.__module__, robustbench.eval.AutoAttack is AutoAttack)"
    )
    assert run(code) == "zoo.autoattack.stand_in True"


@pytest.mark.parametrize("first", ["import zoo", "import autoattack"])
def test_a_real_autoattack_keeps_its_name(tmp_path: Path, first: str) -> None:
    package = tmp_path / "autoattack"
    package.mkdir()
    (package / "__init__.py").write_text("AutoAttack = 'the real one'")
    (package / "state.py").write_text("EvaluationState = 'its state'")
    code = (
        f"{first}\nimport zoo\nfrom autoattack import AutoAttack\n"
        "from autoattack.state import EvaluationState\n"
        "print(AutoAttack, EvaluationState)"
    )
    assert run(code, tmp_path) == "the real one its state"
    # What the real one lacks is missing, not filled up from elsewhere.
    code = (
        "import zoo\ntry:\n  import autoattack.square\nexcept ImportError: print('no')"
    )
    assert run(code, tmp_path) == "no"


def test_no_file_of_ours_bears_the_name() -> None:
    files = distribution("robrep").files or []
    assert not [file for file in files if file.parts[0] == "autoattack"]


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
    log = tmp_path / "log.txt"
    ours = AutoAttack(
        plain_classifier, "Linf", 0.1, 1, False, ["apgd-ce"], "custom", log_path=log
    )
    got, labels = ours.run_standard_evaluation(x, y, bs=12, return_labels=True)
    assert torch.equal(got, want)
    assert torch.equal(labels, want_labels)
    assert torch.equal(ours.run_standard_evaluation(x, y, bs=12), want)
    alone = ours.run_standard_evaluation_individual(x, y, bs=12)
    assert torch.equal(alone["apgd-ce"], want)


def test_members_are_set_up_as_in_the_original(
    plain_classifier: Classifier, digits_test: Dataset
) -> None:
    """Upstream's README: version 'custom', then attacks and restarts assigned."""
    x, y = digits_test.images(slice(6)), digits_test.labels[:6]
    adversary = AutoAttack(
        plain_classifier, norm="Linf", eps=0.1, version="custom", verbose=False
    )
    adversary.attacks_to_run = ["apgd-ce"]
    adversary.apgd.n_restarts = 2
    adversary.apgd.n_iter = 3
    changed = adversary.run_standard_evaluation(x, y)
    adversary.apgd.n_iter = 100
    assert not torch.equal(adversary.run_standard_evaluation(x, y), changed)
    with pytest.raises(ValueError, match="overridden unless"):
        AutoAttack(plain_classifier, attacks_to_run=["apgd-ce"], version="standard")
    with pytest.raises(ValueError, match="TensorFlow"):
        AutoAttack(plain_classifier, is_tf_model=True)
    plus = AutoAttack(plain_classifier, version="custom", verbose=False)
    plus.set_version("plus")
    assert plus.apgd.n_restarts == 5


def test_each_instance_writes_its_own_log_once(
    plain_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    x, y = digits_test.images(slice(4)), digits_test.labels[:4]
    texts = []
    for number in range(2):
        log = tmp_path / f"{number}.txt"
        adversary = AutoAttack(
            plain_classifier, "Linf", 0.1, 1, True, ["apgd-ce"], "custom", log_path=log
        )
        adversary.apgd.n_iter = 2
        adversary.run_standard_evaluation(x, y)
        texts.append(log.read_text())
    for text in texts:
        assert text.count("running apgd-ce") == 1


def test_every_module_of_pyautoattack_that_imports_is_there() -> None:
    for name in ("autopgd_base", "checks", "fab_pt", "other_utils", "square", "state"):
        real = import_module(f"pyautoattack.{name}")
        code = f"import zoo, autoattack.{name} as m; print(len(vars(m)) > 5)"
        assert vars(real)
        assert run(code) == "True"
