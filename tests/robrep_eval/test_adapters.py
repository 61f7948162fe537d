"""The wrappers give ART and RobustBench the very same classifier."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from robrep_eval.adapters import to_art, to_robustbench
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset


def test_art_predictions_and_gradients_are_the_modules(
    plain_classifier: Classifier, digits_test: Dataset
) -> None:
    x, y = digits_test.images(slice(20)), digits_test.labels[:20]
    estimator = to_art(plain_classifier)
    np.testing.assert_allclose(
        estimator.predict(x.numpy()), plain_classifier(x).numpy(), atol=1e-6
    )
    leaf = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(plain_classifier(leaf), y)
    (want,) = torch.autograd.grad(loss, leaf)
    got = estimator.loss_gradient(x.numpy(), np.eye(10)[y.numpy()])
    np.testing.assert_allclose(got, want.numpy(), atol=1e-7)
    assert estimator.clip_values.tolist() == [0.0, 1.0]
    assert not plain_classifier.training


def test_robustbench_measures_the_same_clean_accuracy(
    plain_classifier: Classifier, digits_test: Dataset
) -> None:
    from robustbench.utils import clean_accuracy

    x, y = digits_test.images(slice(None)), digits_test.labels
    module = to_robustbench(plain_classifier)
    ours = float((plain_classifier(x).argmax(dim=1) == y).float().mean())
    assert clean_accuracy(module, x, y) == np.float32(ours)
    assert torch.equal(module(x[:7]), plain_classifier(x[:7]))


def test_the_robustbench_module_runs_where_robrep_is_not(
    plain_classifier: Classifier, digits_test: Dataset, tmp_path: Path
) -> None:
    x = digits_test.images(slice(5))
    torch.save(to_robustbench(plain_classifier), tmp_path / "module.pt")
    torch.save(x, tmp_path / "x.pt")
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("zoo", "robrep_eval", "pretrain"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
module = torch.load("module.pt", weights_only=False)  # written one line above by us
torch.save(module(torch.load("x.pt")), "out.pt")
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    out = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(out, plain_classifier(x))
